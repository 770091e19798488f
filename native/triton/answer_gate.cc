#include "triton/answer_gate.h"

#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "triton/abi.h"

namespace jigsaw {
namespace {

// Bytes of a socket's buffer that the kernel charges for one small message.
constexpr int kMessageBytes = 768;

// Fraction of a socket's buffer that may be filled.
constexpr double kMaxFill = 0.5;

// Interval at which held responses are tried again.
constexpr auto kRetryInterval = std::chrono::microseconds(200);

// Returns true if an end of a connection is a Unix socket without a name.
bool unnamed(int socket, int (*name_of)(int, sockaddr*, socklen_t*)) {
  sockaddr_un name{};
  socklen_t size = sizeof name;
  return name_of(socket, reinterpret_cast<sockaddr*>(&name), &size) == 0 && name.sun_family == AF_UNIX &&
         size <= sizeof(sa_family_t);
}

void send_now(TRITONBACKEND_Response* response, TRITONSERVER_Error* error) {
  if (TRITONSERVER_Error* failed = TRITONBACKEND_ResponseSend(response, TRITONSERVER_RESPONSE_COMPLETE_FINAL, error))
    TRITONSERVER_ErrorDelete(failed);
  if (error) TRITONSERVER_ErrorDelete(error);
}

}  // namespace

AnswerGate& AnswerGate::get() {
  // Never destroyed, because its thread may outlive all other objects.
  static auto* gate = new AnswerGate;
  return *gate;
}

void AnswerGate::find_pairs() {
  std::lock_guard lock(mutex_);
  sockets_.clear();
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  int most = int(std::min<rlim_t>(limit.rlim_cur, 65536));
  for (int file = 0; file < most; file++) {
    int type = 0;
    socklen_t size = sizeof type;
    if (getsockopt(file, SOL_SOCKET, SO_TYPE, &type, &size) != 0 || type != SOCK_STREAM) continue;
    if (!unnamed(file, getsockname) || !unnamed(file, getpeername)) continue;
    // Named ends belong to other connections: the peer of a connection to a worker, or the own end of a client's
    // connection to a Unix socket, has a name.
    int bytes = 0;
    size = sizeof bytes;
    getsockopt(file, SOL_SOCKET, SO_SNDBUF, &bytes, &size);
    buffer_bytes_ = sockets_.empty() ? bytes : std::min(buffer_bytes_, bytes);
    sockets_.push_back(file);
  }
  budget_ = 0;
}

bool AnswerGate::admit() {
  if (budget_.fetch_sub(1, std::memory_order_relaxed) > 0) return true;
  if (sockets_.empty()) return true;
  int most = 0;
  for (int socket : sockets_) {
    int queued = 0;
    if (ioctl(socket, TIOCOUTQ, &queued) == 0) most = std::max(most, queued);
  }
  int more = int((kMaxFill * buffer_bytes_ - most) / kMessageBytes);
  if (more <= 0) return false;
  budget_ = more - 1;
  return true;
}

void AnswerGate::send(TRITONBACKEND_Response* response, TRITONSERVER_Error* error) {
  if (!holding_.load(std::memory_order_acquire)) {
    if (budget_.fetch_sub(1, std::memory_order_relaxed) > 0) {
      send_now(response, error);
      return;
    }
    std::unique_lock lock(mutex_);
    if (held_.empty() && admit()) {
      lock.unlock();
      send_now(response, error);
      return;
    }
  }
  std::lock_guard lock(mutex_);
  if (!started_) {
    started_ = true;
    std::thread([this] { run(); }).detach();
  }
  held_.push_back({response, error});
  holding_ = true;
  changed_.notify_one();
}

void AnswerGate::run() {
  pthread_setname_np(pthread_self(), "jigsaw-answers");
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return !held_.empty(); });
    while (!held_.empty()) {
      if (!admit()) {
        lock.unlock();
        std::this_thread::sleep_for(kRetryInterval);
        lock.lock();
        continue;
      }
      Answer answer = held_.front();
      held_.pop_front();
      lock.unlock();
      send_now(answer.response, answer.error);
      lock.lock();
    }
    holding_ = false;
  }
}

}  // namespace jigsaw
