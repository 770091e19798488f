#include "core/event_loop.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <system_error>

#include "core/connection.h"

namespace jigsaw {

EventLoop::EventLoop() {
  epoll_ = epoll_create1(EPOLL_CLOEXEC);
  timer_ = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  event_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (epoll_ < 0 || timer_ < 0 || event_ < 0)
    throw std::system_error(errno, std::generic_category(), "cannot create the event loop of the backend");
  epoll_event event{};
  event.data.u64 = kWakeUp;
  // The loop does not read the timer: each of its ends is one event.
  event.events = EPOLLIN | EPOLLET;
  epoll_ctl(epoll_, EPOLL_CTL_ADD, timer_, &event);
  epoll_ctl(epoll_, EPOLL_CTL_ADD, event_, &event);
}

EventLoop::~EventLoop() {
  close(event_);
  close(timer_);
  close(epoll_);
}

void EventLoop::stop() {
  stopping_ = true;
  uint64_t one = 1;
  [[maybe_unused]] ssize_t n = write(event_, &one, sizeof one);
  thread_.join();
}

void EventLoop::wake_at(Time when) {
  if (when < wake_) set_wake_time(when);
}

void EventLoop::set_wake_time(Time when) {
  wake_ = when;
  itimerspec timer{};
  if (when != kNever) {
    timer.it_value.tv_sec = time_t(when / kSecond);
    timer.it_value.tv_nsec = long(when % kSecond);
  }
  timerfd_settime(timer_, TFD_TIMER_ABSTIME, &timer, nullptr);
}

void EventLoop::arm(Connection& connection) {
  epoll_event event{};
  event.events = EPOLLIN | EPOLLONESHOT;
  if (connection.sending()) event.events |= EPOLLOUT;
  event.data.u64 = connection.call.number;
  int operation = connection.registered_with_loop ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
  connection.registered_with_loop = true;
  epoll_ctl(epoll_, operation, connection.socket(), &event);
}

}  // namespace jigsaw
