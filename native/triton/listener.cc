#include "triton/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

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

// Time between two looks at the socket file. Without the file, no gateway can connect.
constexpr Time kFilePeriod = kSecond;

// Pause after a connection that could not be accepted. Without it, the loop would find that connection again at once.
constexpr Time kAcceptPause = 10 * kMillisecond;

[[noreturn]] void throw_errno(const std::string& what) { throw std::runtime_error(what + ": " + strerror(errno)); }

}  // namespace

Listener::Listener(TRITONSERVER_Server* server, std::string path, std::string secret)
    : server_(server), path_(std::move(path)), secret_(std::move(secret)) {
  epoll_.open(epoll_create1(EPOLL_CLOEXEC));
  event_.open(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  if (epoll_ < 0 || event_ < 0) throw_errno("cannot create the event loop of the listener");
  listen(path_);
  identity_ = identity_of_socket(path_);
  wait_for(event_, EPOLLIN, EPOLL_CTL_ADD);
  wait_for(socket_, EPOLLIN, EPOLL_CTL_ADD);
  check(TRITONSERVER_ResponseAllocatorNew(&allocator_, InferenceCall::allocate, InferenceCall::free_buffer, nullptr));
  thread_ = std::thread([this] { loop(); });
  freeing_thread_ = std::thread([this] { free_objects(); });
}

void Listener::listen(const std::string& path) {
  sockaddr_un at{};
  at.sun_family = AF_UNIX;
  if (path.size() >= sizeof at.sun_path)
    throw std::runtime_error("cannot listen at " + path + ": the path is longer than " +
                             std::to_string(sizeof at.sun_path - 1) + " bytes; choose a shorter run directory");
  memcpy(at.sun_path, path.data(), path.size());
  socket_.close();
  socket_.open(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (socket_ < 0) throw_errno("cannot create a socket");
  // The library that each server preloads denies all access to other users.
  if (bind(socket_, reinterpret_cast<sockaddr*>(&at), sizeof at) != 0 || ::listen(socket_, SOMAXCONN) != 0)
    throw_errno("cannot listen at " + path);
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
  {
    std::lock_guard lock(mutex_);
    ended_ = true;
  }
  free_.notify_one();
  freeing_thread_.join();
  log_failure(TRITONSERVER_ResponseAllocatorDelete(allocator_));
}

void Listener::accept_all() {
  int made;
  while ((made = accept4(socket_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
    auto connection = std::make_shared<ServedConnection>(*this, made);
    if (wait_for(made, EPOLLIN, EPOLL_CTL_ADD)) connections_[made] = std::move(connection);
  }
  if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED) return;
  wait_for(socket_, 0, EPOLL_CTL_MOD);
  accept_at_ = now() + kAcceptPause;
}

int Listener::patience_ms() const {
  if (accept_at_ != kNever) return int(kAcceptPause / kMillisecond);
  if (end_ != kNever) return kDrainPollMs;
  // Events must not put off the look at the socket file.
  Time at = now();
  return look_at_ > at ? int((look_at_ - at) / kMillisecond) + 1 : 0;
}

void Listener::restore_file() {
  if (now() < look_at_) return;
  look_at_ = now() + kFilePeriod;
  if (identity_of_socket(path_) != kNoServer) return;
  // Gateways must not see the file before it has the identity, so it begins with another path. That path is not longer,
  // because there may be no room for a longer one.
  std::string temporary = path_;
  temporary.back() = '~';
  unlink(temporary.c_str());
  try {
    listen(temporary);
  } catch (const std::exception&) {
    return;  // The next look tries again.
  }
  const timespec times[] = {{0, UTIME_OMIT}, {identity_ / 1'000'000'000, identity_ % 1'000'000'000}};
  bool restored = utimensat(AT_FDCWD, temporary.c_str(), times, 0) == 0 && link(temporary.c_str(), path_.c_str()) == 0;
  unlink(temporary.c_str());
  if (!restored) return;
  wait_for(socket_, EPOLLIN, EPOLL_CTL_ADD);
  accept_at_ = kNever;
  log_message(TRITONSERVER_LOG_WARN, "the socket " + path_ + " was removed; it has been made again");
}

bool Listener::wait_for(int file, uint32_t events, int operation) {
  epoll_event event{};
  event.events = events;
  event.data.fd = file;
  return epoll_ctl(epoll_, operation, file, &event) == 0;
}

void Listener::discard(std::shared_ptr<void> object) {
  if (!object) return;
  {
    std::lock_guard lock(mutex_);
    discarded_.push_back(std::move(object));
  }
  free_.notify_one();
}

void Listener::free_objects() {
  pthread_setname_np(pthread_self(), "jigsaw-free");
  std::unique_lock lock(mutex_);
  while (!ended_ || !discarded_.empty()) {
    free_.wait(lock, [this] { return ended_ || !discarded_.empty(); });
    std::vector<std::shared_ptr<void>> discarded = std::exchange(discarded_, {});
    lock.unlock();
    discarded.clear();
    lock.lock();
  }
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
  while (end_ == kNever || (!connections_.empty() && now() < end_)) {
    int count = epoll_wait(epoll_, events.data(), int(events.size()), patience_ms());
    for (int i = 0; i < count; i++) {
      int file = events[size_t(i)].data.fd;
      if (file == socket_) {
        accept_all();
      } else if (file == event_) {
        stop_listening();
        end_ = now() + kDrain;
      } else if (auto found = connections_.find(file); found != connections_.end() && !found->second->on_event()) {
        epoll_ctl(epoll_, EPOLL_CTL_DEL, file, nullptr);
        discard(std::move(found->second));
        connections_.erase(found);
      }
    }
    if (now() >= accept_at_) {
      accept_at_ = kNever;
      wait_for(socket_, EPOLLIN, EPOLL_CTL_MOD);
    }
    if (end_ == kNever) restore_file();
  }
  for (auto& [file, connection] : connections_) connection->abandon();
}

void Listener::stop_listening() {
  uint64_t value;
  [[maybe_unused]] ssize_t n = ::read(event_, &value, sizeof value);
  if (identity_of_socket(path_) == identity_) unlink(path_.c_str());
  socket_.close();
  std::erase_if(connections_, [](const auto& item) { return item.second->end(); });
}

}  // namespace jigsaw
