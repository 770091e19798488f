// Requests of the server to a front.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <mutex>

#include "core/base.h"
#include "core/front.h"
#include "triton/abi.h"

namespace jigsaw {

// Counts the requests of a model instance, because Triton may finalize an instance while its front has requests in
// flight. Thread-safe.
class RequestsInFlight {
 public:
  void add(size_t count) {
    std::lock_guard lock(mutex_);
    count_ += count;
  }

  void end() {
    std::lock_guard lock(mutex_);
    if (--count_ == 0) idle_.notify_all();
  }

  // Waits until all of them have ended.
  void wait() {
    std::unique_lock lock(mutex_);
    idle_.wait(lock, [this] { return count_ == 0; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable idle_;
  size_t count_ = 0;
};

// Passes a request of an execution that began at `begin` to a front. `in_flight` counts the request already, and no
// longer once it is released.
void submit(Front& front, TRITONBACKEND_Request* request, TRITONBACKEND_ModelInstance* instance,
            RequestsInFlight& in_flight, Time begin);

}  // namespace jigsaw
