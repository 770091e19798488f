#include "triton/listener.h"

#include <errno.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <stdexcept>
#include <utility>
#include <vector>

#include "triton/calls.h"
#include "triton/inference_call.h"
#include "triton/served_connection.h"

namespace jigsaw {
namespace {

// Time that clients get to read their answers when the listener stops.
constexpr Time kDrain = 5 * kSecond;
constexpr int kDrainPollMs = 50;

// Pause after a connection that could not be accepted, because there are too many open files or no memory is left.
constexpr auto kAcceptPause = std::chrono::milliseconds(10);

[[noreturn]] void throw_errno(const std::string& what) { throw std::runtime_error(what + ": " + strerror(errno)); }

}  // namespace

Listener::Listener(TRITONSERVER_Server* server, std::string path, std::string secret)
    : server_(server), path_(std::move(path)), secret_(std::move(secret)) {
  epoll_.open(epoll_create1(EPOLL_CLOEXEC));
  event_.open(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  if (epoll_ < 0 || event_ < 0) throw_errno("cannot create the event loop of the listener");
  listen();
  wait_for(event_, EPOLLIN, EPOLL_CTL_ADD);
  wait_for(socket_, EPOLLIN, EPOLL_CTL_ADD);
  check(TRITONSERVER_ResponseAllocatorNew(&allocator_, InferenceCall::allocate, InferenceCall::free_buffer, nullptr));
  thread_ = std::thread([this] { loop(); });
}

void Listener::listen() {
  sockaddr_un at{};
  at.sun_family = AF_UNIX;
  if (path_.size() >= sizeof at.sun_path) throw std::runtime_error("the path of the socket is too long: " + path_);
  memcpy(at.sun_path, path_.data(), path_.size());
  socket_.open(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (socket_ < 0) throw_errno("cannot create a socket");
  // The library that each server preloads denies all access to other users.
  if (bind(socket_, reinterpret_cast<sockaddr*>(&at), sizeof at) != 0 || ::listen(socket_, SOMAXCONN) != 0)
    throw_errno("cannot listen at " + path_);
}

Listener::~Listener() {
  uint64_t one = 1;
  [[maybe_unused]] ssize_t n = write(event_, &one, sizeof one);
  thread_.join();
  {
    std::unique_lock lock(mutex_);
    idle_.wait(lock, [this] { return calls_ == 0; });
  }
  connections_.clear();
  log_failure(TRITONSERVER_ResponseAllocatorDelete(allocator_));
}

void Listener::accept_all() {
  int made;
  while ((made = accept4(socket_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
    connections_[made] = std::make_shared<ServedConnection>(*this, made);
    wait_for(made, EPOLLIN, EPOLL_CTL_ADD);
  }
  // Without a pause, the loop would spin until the next connection can be accepted.
  if (errno != EAGAIN) std::this_thread::sleep_for(kAcceptPause);
}

void Listener::wait_for(int file, uint32_t events, int operation) {
  epoll_event event{};
  event.events = events;
  event.data.fd = file;
  epoll_ctl(epoll_, operation, file, &event);
}

void Listener::call_begins() {
  std::lock_guard lock(mutex_);
  calls_++;
}

void Listener::call_ended() {
  std::lock_guard lock(mutex_);
  if (--calls_ == 0) idle_.notify_all();
}

void Listener::loop() {
  pthread_setname_np(pthread_self(), "jigsaw-listen");
  std::vector<epoll_event> events(64);
  Time end = kNever;
  while (end == kNever || (!connections_.empty() && now() < end)) {
    int count = epoll_wait(epoll_, events.data(), int(events.size()), end == kNever ? -1 : kDrainPollMs);
    for (int i = 0; i < count; i++) {
      int file = events[size_t(i)].data.fd;
      if (file == socket_) {
        accept_all();
      } else if (file == event_) {
        stop_listening();
        end = now() + kDrain;
      } else if (auto found = connections_.find(file); found != connections_.end() && !found->second->on_event()) {
        epoll_ctl(epoll_, EPOLL_CTL_DEL, file, nullptr);
        connections_.erase(found);
      }
    }
  }
  for (auto& [file, connection] : connections_) connection->abandon();
}

void Listener::stop_listening() {
  uint64_t value;
  [[maybe_unused]] ssize_t n = ::read(event_, &value, sizeof value);
  unlink(path_.c_str());
  socket_.close();
  std::erase_if(connections_, [](const auto& item) { return item.second->end(); });
}

}  // namespace jigsaw
