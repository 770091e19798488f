// A call that the listener has passed to the server.
#pragma once

#include <sys/uio.h>

#include <atomic>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "core/region.h"
#include "core/served_call.h"
#include "triton/abi.h"

namespace jigsaw {

class Listener;
class ServedConnection;

// An error to answer a request with.
struct RequestError : std::runtime_error {
  RequestError(int status, const std::string& message) : std::runtime_error(message), status(status) {}
  int status;
};

// A call in flight. It deletes itself once the server has released its request, and its answer is written or dropped.
class InferenceCall {
 public:
  InferenceCall(Listener& listener, std::shared_ptr<ServedConnection> connection, RequestBody body, ServedCall call,
                std::shared_ptr<MappedRegion> region);

  // Passes the call to the server. Models find the context of its trace in the parameters of the request.
  // Throws RequestError if the server refuses it; then the caller must delete the call.
  void submit(const std::string& model, const TraceHeaders& trace);

  // Asks the server to cancel the request. Requires the connection's mutex.
  void cancel();

  // Ends one use of the call.
  void drop();

  // Functions of the server's allocator of responses.
  static TRITONSERVER_Error* allocate(TRITONSERVER_ResponseAllocator*, const char* name, size_t size,
                                      TRITONSERVER_MemoryType, int64_t, void* user, void** buffer, void** buffer_user,
                                      TRITONSERVER_MemoryType* memory, int64_t* memory_id);
  static TRITONSERVER_Error* free_buffer(TRITONSERVER_ResponseAllocator*, void* buffer, void* buffer_user, size_t,
                                         TRITONSERVER_MemoryType, int64_t);

 private:
  static void on_response(TRITONSERVER_InferenceResponse* response, uint32_t flags, void* user);
  static void on_release(TRITONSERVER_InferenceRequest* request, uint32_t flags, void* user);

  // Builds the answer in `head_` and `pieces`.
  void build(TRITONSERVER_InferenceResponse* response, std::vector<iovec>& pieces);

  // Returns the output that the call requests under this name; nullptr if it requests none.
  const ServedOutput* output(std::string_view name) const;

  Listener& listener_;
  const std::shared_ptr<ServedConnection> connection_;
  const RequestBody body_;
  const ServedCall call_;
  const std::shared_ptr<MappedRegion> region_;
  TRITONSERVER_InferenceRequest* request_ = nullptr;
  TRITONSERVER_InferenceResponse* response_ = nullptr;  // Response that owns the outputs of the answer.
  std::string head_;
  bool answered_ = false;
  std::atomic<int> uses_{2};  // The final response and the release of the request, and an answer that is not written.
};

}  // namespace jigsaw
