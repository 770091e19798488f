// A request of a test. It owns its inputs and keeps its response.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "core/front.h"
#include "core/host.h"

namespace jigsaw {

// Reference-counted by two owners: the test, until `drop`, and the core, until `release`. Thread-safe.
class Client : public Request {
 public:
  // `json` has "inputs": [{"dtype", "shape", "size"}, ...], whose bytes are concatenated in `data`. Optional members
  // are "id", "arrival", "deadline", "timeout_us", "priority", "traceparent", "tracestate", "wanted" and
  // "refuse_output", the index of an output whose allocation fails. Throws FormatError.
  Client(const FrontSpec& spec, std::string_view json, std::string_view data);

  // Sends the request to a front.
  void submit(Front& front);

  void cancel() { cancelled_ = true; }

  // Waits until the core has released the request. Returns false if that takes longer than `seconds`.
  bool wait(double seconds);

  // Returns the result as JSON: {"failure": {"blame", "message"} or null, "outputs": [{"index", "dtype", "shape",
  // "size"}], "items", "sent", "received"}.
  std::string outcome() const;

  // Returns the bytes of the output at an index of `outcome`.
  const char* data(size_t place) const { return outputs_[place].data.get(); }

  // Ends the use by the test. The object is deleted when the core has also released it.
  void drop();

  std::string_view id() const override { return id_; }
  bool cancelled() const override { return cancelled_; }
  char* allocate(size_t output, DataType type, const Shape& shape, size_t size) override;
  void respond(const Failure* failure, const Timing& timing) override;
  void release() override;

 private:
  struct Output {
    size_t index;
    DataType type;
    Shape shape;
    size_t size;
    std::unique_ptr<char[]> data;
  };

  ~Client() override = default;

  std::string id_;
  std::unique_ptr<char[]> input_data_;
  std::vector<Value> inputs_;
  RequestOptions options_;
  int64_t refuse_output_ = -1;
  std::atomic<bool> cancelled_{false};

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Output> outputs_;
  std::unique_ptr<Failure> failure_;
  Timing timing_;
  int responses_ = 0;
  bool released_ = false;
  bool dropped_ = false;
};

}  // namespace jigsaw
