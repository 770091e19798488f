// The part of the fake server that runs inferences, for tests of the listener. Its models return their input X as each
// requested output, in a thread of their own.
#include <pthread.h>

#include <chrono>
#include <cstring>
#include <string_view>
#include <thread>

#include "testing/fake_triton.h"

using jigsaw::testing::server;

struct TRITONSERVER_ResponseAllocator {
  TRITONSERVER_ResponseAllocatorAllocFn_t allocate;
  TRITONSERVER_ResponseAllocatorReleaseFn_t release;
};

struct TRITONSERVER_InferenceRequest {
  std::string model, id, parameters;
  DataType type = DataType::kInvalid;
  Shape shape;
  std::string_view data;
  std::vector<std::string> outputs;
  std::atomic<bool> cancelled{false};
  TRITONSERVER_ResponseAllocator* allocator = nullptr;
  void* allocator_user = nullptr;
  TRITONSERVER_InferenceResponseCompleteFn_t respond = nullptr;
  void* respond_user = nullptr;
  TRITONSERVER_InferenceRequestReleaseFn_t release = nullptr;
  void* release_user = nullptr;
};

struct TRITONSERVER_InferenceResponse {
  struct Output {
    std::string name;
    void* base;
    void* user;
  };
  TRITONSERVER_ResponseAllocator* allocator;
  DataType type;
  Shape shape;
  size_t size;
  std::vector<Output> outputs;
  std::unique_ptr<TRITONSERVER_Error> error;
};

namespace {

TRITONSERVER_Error* error(TRITONSERVER_Error_Code code, const std::string& message) {
  return TRITONSERVER_ErrorNew(code, message.c_str());
}

// Runs a request: `echo` answers it, `fail` fails, `say` fails with the id and the parameters of the request, `silent`
// gives no response, and `held` waits until it is cancelled or `triton_let_go` is called.
void run(TRITONSERVER_InferenceRequest* request) {
  pthread_setname_np(pthread_self(), "model");
  if (request->model == "held") {
    std::unique_lock lock(server().mutex);
    server().holding++;
    server().changed.notify_all();
    while (!server().let_go && !request->cancelled) server().changed.wait_for(lock, std::chrono::milliseconds(1));
    server().holding--;
    server().changed.notify_all();
  }
  TRITONSERVER_InferenceResponse* response = nullptr;
  if (request->model != "silent") {
    server().responses++;
    response = new TRITONSERVER_InferenceResponse{
        request->allocator, request->type, request->shape, request->data.size(), {}, nullptr};
    if (request->model == "fail")
      response->error.reset(new TRITONSERVER_Error{TRITONSERVER_ERROR_INTERNAL, "the model fails"});
    if (request->model == "say")
      response->error.reset(
          new TRITONSERVER_Error{TRITONSERVER_ERROR_INTERNAL, request->id + ";" + request->parameters});
    if (request->cancelled) response->error.reset(new TRITONSERVER_Error{TRITONSERVER_ERROR_CANCELLED, "cancelled"});
    for (const std::string& name : request->outputs) {
      if (response->error) break;
      void *base = nullptr, *user = nullptr;
      TRITONSERVER_MemoryType memory = TRITONSERVER_MEMORY_CPU;
      int64_t memory_id = 0;
      TRITONSERVER_Error* failed =
          request->allocator->allocate(request->allocator, name.c_str(), response->size, TRITONSERVER_MEMORY_CPU, 0,
                                       request->allocator_user, &base, &user, &memory, &memory_id);
      if (failed) {
        response->error.reset(new TRITONSERVER_Error(*failed));
        TRITONSERVER_ErrorDelete(failed);
        break;
      }
      if (response->size) memcpy(base, request->data.data(), response->size);
      response->outputs.push_back({name, base, user});
    }
  }
  request->respond(response, TRITONSERVER_RESPONSE_COMPLETE_FINAL, request->respond_user);
  request->release(request, TRITONSERVER_REQUEST_RELEASE_ALL, request->release_user);
}

}  // namespace

extern "C" {

TRITONSERVER_Error_Code TRITONSERVER_ErrorCode(TRITONSERVER_Error* error) { return error->code; }

TRITONSERVER_Error* TRITONBACKEND_ModelServer(TRITONBACKEND_Model*, TRITONSERVER_Server** found) {
  *found = reinterpret_cast<TRITONSERVER_Server*>(&server());
  return nullptr;
}

TRITONSERVER_Error* TRITONSERVER_ResponseAllocatorNew(TRITONSERVER_ResponseAllocator** allocator,
                                                      TRITONSERVER_ResponseAllocatorAllocFn_t allocate,
                                                      TRITONSERVER_ResponseAllocatorReleaseFn_t release,
                                                      TRITONSERVER_ResponseAllocatorStartFn_t) {
  server().arguments++;
  *allocator = new TRITONSERVER_ResponseAllocator{allocate, release};
  return nullptr;
}

TRITONSERVER_Error* TRITONSERVER_ResponseAllocatorDelete(TRITONSERVER_ResponseAllocator* allocator) {
  server().arguments--;
  delete allocator;
  return nullptr;
}

TRITONSERVER_Error* TRITONSERVER_InferenceRequestNew(TRITONSERVER_InferenceRequest** request, TRITONSERVER_Server*,
                                                     const char* model, const int64_t) {
  std::string_view name = model;
  if (name != "echo" && name != "fail" && name != "say" && name != "silent" && name != "held" && name != "full")
    return error(TRITONSERVER_ERROR_NOT_FOUND, std::string("Request for unknown model: '") + model + "' is not found");
  server().requests++;
  *request = new TRITONSERVER_InferenceRequest{};
  (*request)->model = model;
  return nullptr;
}

TRITONSERVER_Error* TRITONSERVER_InferenceRequestDelete(TRITONSERVER_InferenceRequest* request) {
  server().requests--;
  delete request;
  return nullptr;
}

TRITONSERVER_Error* TRITONSERVER_InferenceRequestSetId(TRITONSERVER_InferenceRequest* request, const char* id) {
  request->id = id;
  return nullptr;
}

TRITONSERVER_Error* TRITONSERVER_InferenceRequestSetStringParameter(TRITONSERVER_InferenceRequest* request,
                                                                    const char* key, const char* value) {
  request->parameters += std::string(key) + "=" + value + ";";
  return nullptr;
}

TRITONSERVER_Error* TRITONSERVER_InferenceRequestCancel(TRITONSERVER_InferenceRequest* request) {
  request->cancelled = true;
  return nullptr;
}

TRITONSERVER_Error* TRITONSERVER_InferenceRequestAddInput(TRITONSERVER_InferenceRequest* request, const char* name,
                                                          const TRITONSERVER_DataType type, const int64_t* shape,
                                                          uint64_t dims) {
  if (std::string_view(name) != "X") return error(TRITONSERVER_ERROR_INVALID_ARG, "the only input is X");
  request->type = DataType(type);
  request->shape.assign(shape, shape + dims);
  return nullptr;
}

TRITONSERVER_Error* TRITONSERVER_InferenceRequestAppendInputData(TRITONSERVER_InferenceRequest* request, const char*,
                                                                 const void* base, size_t size, TRITONSERVER_MemoryType,
                                                                 int64_t) {
  request->data = {static_cast<const char*>(base), size};
  return nullptr;
}

TRITONSERVER_Error* TRITONSERVER_InferenceRequestAddRequestedOutput(TRITONSERVER_InferenceRequest* request,
                                                                    const char* name) {
  request->outputs.emplace_back(name);
  return nullptr;
}

TRITONSERVER_Error* TRITONSERVER_InferenceRequestSetReleaseCallback(TRITONSERVER_InferenceRequest* request,
                                                                    TRITONSERVER_InferenceRequestReleaseFn_t release,
                                                                    void* user) {
  request->release = release;
  request->release_user = user;
  return nullptr;
}

TRITONSERVER_Error* TRITONSERVER_InferenceRequestSetResponseCallback(TRITONSERVER_InferenceRequest* request,
                                                                     TRITONSERVER_ResponseAllocator* allocator,
                                                                     void* allocator_user,
                                                                     TRITONSERVER_InferenceResponseCompleteFn_t respond,
                                                                     void* user) {
  request->allocator = allocator;
  request->allocator_user = allocator_user;
  request->respond = respond;
  request->respond_user = user;
  return nullptr;
}

TRITONSERVER_Error* TRITONSERVER_InferenceResponseError(TRITONSERVER_InferenceResponse* response) {
  return response->error ? error(response->error->code, response->error->message) : nullptr;
}

TRITONSERVER_Error* TRITONSERVER_InferenceResponseOutputCount(TRITONSERVER_InferenceResponse* response,
                                                              uint32_t* count) {
  *count = uint32_t(response->outputs.size());
  return nullptr;
}

TRITONSERVER_Error* TRITONSERVER_InferenceResponseOutput(TRITONSERVER_InferenceResponse* response, const uint32_t index,
                                                         const char** name, TRITONSERVER_DataType* type,
                                                         const int64_t** shape, uint64_t* dims, const void** base,
                                                         size_t* size, TRITONSERVER_MemoryType* memory,
                                                         int64_t* memory_id, void** user) {
  const auto& output = response->outputs[index];
  *name = output.name.c_str();
  *type = TRITONSERVER_DataType(response->type);
  *shape = response->shape.data();
  *dims = response->shape.size();
  *base = output.base;
  *size = response->size;
  *memory = TRITONSERVER_MEMORY_CPU;
  *memory_id = 0;
  *user = nullptr;
  return nullptr;
}

TRITONSERVER_Error* TRITONSERVER_InferenceResponseDelete(TRITONSERVER_InferenceResponse* response) {
  for (const auto& output : response->outputs)
    response->allocator->release(response->allocator, output.base, output.user, response->size, TRITONSERVER_MEMORY_CPU,
                                 0);
  delete response;
  char thread[16] = "";
  pthread_getname_np(pthread_self(), thread, sizeof thread);
  std::lock_guard lock(server().mutex);
  server().freed_by.insert(thread);
  server().responses--;
  return nullptr;
}

TRITONSERVER_Error* TRITONSERVER_ServerInferAsync(TRITONSERVER_Server*, TRITONSERVER_InferenceRequest* request,
                                                  TRITONSERVER_InferenceTrace*) {
  if (request->model == "full") return error(TRITONSERVER_ERROR_UNAVAILABLE, "the queue is full");
  std::thread(run, request).detach();
  return nullptr;
}

// Lets the model `held` answer from now on, or hold requests again.
void triton_let_go(int let_go) {
  std::lock_guard lock(server().mutex);
  server().let_go = let_go != 0;
  server().changed.notify_all();
}

// Waits until the model `held` holds a number of requests. Returns 0 on timeout.
int triton_wait_held(int count, double seconds) {
  std::unique_lock lock(server().mutex);
  return server().changed.wait_for(lock, std::chrono::duration<double>(seconds),
                                   [&] { return server().holding == count; });
}

}  // extern "C"
