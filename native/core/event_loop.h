// Events of sockets, and wake-ups at a time, for the thread that receives all answers.
#pragma once

#include <sys/epoll.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <thread>
#include <utility>

#include "core/base.h"

namespace jigsaw {

class Connection;

// Owned by the engine, which gives it the body of its thread. All functions may be called by any thread, except those
// that say otherwise.
class EventLoop {
 public:
  EventLoop();
  ~EventLoop();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  // Starts the thread. Called once.
  void start(std::function<void()> body) { thread_ = std::thread(std::move(body)); }

  // Makes the thread's body return from `wait`, and waits until it has ended. `stopping` is true from then on.
  void stop();
  bool stopping() const { return stopping_; }

  // Makes the loop wake up at this time or earlier. Requires the engine's lock.
  void wake_at(Time when);

  // Next time at which a task must be dispatched or a lock released. Both require the engine's lock.
  Time wake_time() const { return wake_; }
  void set_wake_time(Time when);

  // Makes the loop wait for the next event of a connection. Requires the engine's lock.
  void arm(Connection& connection);

  // Waits for at most this many milliseconds, or without limit if it is -1, and passes the number of the call of each
  // connection with an event to `handle`. Called by the thread, without the lock.
  template <typename Handle>
  void wait(int timeout_ms, Handle handle) {
    int count = epoll_wait(epoll_, events_.data(), int(events_.size()), timeout_ms);
    for (int i = 0; i < count; i++)
      if (uint64_t number = events_[size_t(i)].data.u64; number != kWakeUp) handle(number);
  }

 private:
  static constexpr uint64_t kWakeUp = 0;  // No call has this number.

  int epoll_ = -1;
  int timer_ = -1;  // Timer that ends at `wake_`.
  int event_ = -1;  // Event file descriptor that ends the loop.
  std::array<epoll_event, 256> events_;
  Time wake_ = kNever;
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

}  // namespace jigsaw
