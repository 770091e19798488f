#include "core/event_loop.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <system_error>

#include "core/connection.h"

namespace jigsaw {

EventLoop::EventLoop() {
  epoll_ = epoll_create1(EPOLL_CLOEXEC);
  event_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (epoll_ < 0 || event_ < 0)
    throw std::system_error(errno, std::generic_category(), "cannot create the event loop of the backend");
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = kWakeUp;
  epoll_ctl(epoll_, EPOLL_CTL_ADD, event_, &event);
}

EventLoop::~EventLoop() {
  close(event_);
  close(epoll_);
}

void EventLoop::stop() {
  stopping_ = true;
  wake();
  thread_.join();
}

void EventLoop::wake_at(Time when) {
  if (when >= wake_) return;
  wake_ = when;
  if (std::this_thread::get_id() != thread_.get_id()) wake();
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

void EventLoop::wake() {
  uint64_t one = 1;
  [[maybe_unused]] ssize_t n = write(event_, &one, sizeof one);
}

void EventLoop::clear_wake_up() {
  uint64_t value;
  [[maybe_unused]] ssize_t n = read(event_, &value, sizeof value);
}

}  // namespace jigsaw
