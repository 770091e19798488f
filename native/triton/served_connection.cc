#include "triton/served_connection.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <new>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "triton/inference_call.h"
#include "triton/listener.h"

namespace jigsaw {
namespace {

constexpr std::string_view kModels = "/v2/models/", kInfer = "/infer";
constexpr std::string_view kRegions = "/v2/systemsharedmemory/region/";

// Bytes that the listener's thread reads or writes at a connection before the others get their turn.
constexpr size_t kTurnBytes = size_t{1} << 20;

}  // namespace

ServedConnection::~ServedConnection() { listener_.discard(std::move(region_)); }

bool ServedConnection::on_event() {
  InferenceCall* written = nullptr;
  bool goes_on = false;
  {
    std::unique_lock lock(mutex);
    switch (state_) {
      case State::kReading:
        goes_on = read();
        if (goes_on && reader_.done()) {
          lock.unlock();
          handle();
          return true;
        }
        break;
      case State::kCalling: {
        // Nothing may arrive before the answer: the client has gone, or breaks the protocol.
        char byte;
        ssize_t n = recv(socket_, &byte, 1, MSG_PEEK);
        goes_on = n < 0 && (errno == EAGAIN || errno == EINTR);
        if (!goes_on) {
          call_->cancel();
          // The call in flight may keep the socket open for long.
          shutdown(socket_, SHUT_RDWR);
        }
        break;
      }
      case State::kWriting:
        goes_on = pieces_.send(socket_, kTurnBytes) == 0;
        if (goes_on && pieces_.empty()) {
          written = std::exchange(call_, nullptr);
          listen_for(EPOLLIN);
          read_next();
        }
        break;
      case State::kEnded:
        goes_on = false;
    }
    if (!goes_on) {
      if (state_ == State::kWriting) written = std::exchange(call_, nullptr);
      state_ = State::kEnded;
    }
  }
  if (written) drop_later(*written);
  return goes_on;
}

void ServedConnection::drop_later(InferenceCall& call) {
  listener_.discard({static_cast<void*>(&call), [&call](void*) { call.drop(); }});
}

bool ServedConnection::read() {
  try {
    for (size_t taken = 0; !reader_.done() && taken < kTurnBytes;) {
      std::span<char> room = reader_.room();
      ssize_t n = recv(socket_, room.data(), room.size(), 0);
      if (n < 0) return errno == EAGAIN || errno == EINTR;
      if (n == 0) return false;
      reader_.received(size_t(n));
      taken += size_t(n);
    }
  } catch (const FormatError& error) {
    return reject(400, error.what());
  } catch (const std::bad_alloc&) {
    return reject(503, "no memory is left for the request");
  }
  return true;
}

bool ServedConnection::reject(int status, const char* message) {
  std::string text;
  append_error(text, status, message, true);
  [[maybe_unused]] ssize_t n = send(socket_, text.data(), text.size(), MSG_NOSIGNAL);
  return false;
}

void ServedConnection::handle() {
  const RequestHead& head = reader_.head();
  std::string_view path = head.path;
  try {
    if (head.method == "POST" && path.starts_with(kModels) && path.ends_with(kInfer) &&
        path.size() > kModels.size() + kInfer.size()) {
      infer(std::string(path.substr(kModels.size(), path.size() - kModels.size() - kInfer.size())));
      return;
    }
    RequestBody body = reader_.take();
    if (head.method == "POST" && path.starts_with(kRegions)) {
      if (head.secret != listener_.secret()) throw RequestError(403, "the secret is wrong");
      path.remove_prefix(kRegions.size());
      std::string name(path.substr(0, path.find('/')));
      if (path.ends_with("/register")) {
        Registration wanted = parse_registration(body.text());
        listener_.discard(std::move(region_));
        region_ = std::make_shared<MappedRegion>(std::move(name), wanted.key, wanted.size);
      } else {
        listener_.discard(std::move(region_));
      }
      std::string text;
      append_empty_answer(text);
      send_text(std::move(text));
      return;
    }
    throw RequestError(404, "this socket is for calls of models only");
  } catch (const RequestError& error) {
    refuse(error.status, error.what(), false);
  } catch (const std::runtime_error& error) {
    refuse(400, error.what(), false);
  } catch (const std::exception& error) {
    refuse(503, error.what(), true);
  }
}

void ServedConnection::infer(const std::string& model) {
  RequestBody body = reader_.take();
  ServedCall call = parse_call(body.text(), body.size - body.json);
  if (!call.region.empty() && (!region_ || region_->name() != call.region))
    throw RequestError(400, "Unable to find shared memory region: '" + call.region + "'");
  auto made = std::make_unique<InferenceCall>(listener_, shared_from_this(), std::move(body), std::move(call), region_);
  {
    std::lock_guard lock(mutex);
    state_ = State::kCalling;
    call_ = made.get();
  }
  listener_.call_begins();
  try {
    made->submit(model, reader_.head().trace);
    // From here on it owns itself, and may have ended.
    [[maybe_unused]] InferenceCall* own = made.release();
  } catch (const std::exception&) {
    listener_.call_ended();
    throw;
  }
}

void ServedConnection::refuse(int status, const std::string& message, bool closes) {
  closes_ |= closes;
  std::string text;
  append_error(text, status, message, closes_);
  send_text(std::move(text));
}

void ServedConnection::send_text(std::string text) {
  text_ = std::move(text);
  answer(nullptr, {{text_.data(), text_.size()}});
}

bool ServedConnection::answer(InferenceCall* call, std::vector<iovec> pieces) {
  std::lock_guard lock(mutex);
  call_ = nullptr;
  if (state_ == State::kEnded) return false;
  pieces_.assign(std::move(pieces));
  if (pieces_.send(socket_) != 0) {
    // The listener's thread closes the connection.
    shutdown(socket_, SHUT_RDWR);
    state_ = State::kEnded;
    return false;
  }
  if (pieces_.empty()) {
    read_next();
    return false;
  }
  state_ = State::kWriting;
  call_ = call;
  listen_for(EPOLLOUT);
  return call != nullptr;
}

void ServedConnection::read_next() {
  state_ = State::kReading;
  // The listener's thread then finds the end of the connection.
  if (closes_) shutdown(socket_, SHUT_RDWR);
}

void ServedConnection::listen_for(uint32_t events) { listener_.wait_for(socket_, events, EPOLL_CTL_MOD); }

bool ServedConnection::end() {
  std::lock_guard lock(mutex);
  closes_ = true;
  return state_ == State::kReading || state_ == State::kEnded;
}

void ServedConnection::abandon() {
  InferenceCall* written = nullptr;
  {
    std::lock_guard lock(mutex);
    if (state_ == State::kWriting) written = call_;
    call_ = nullptr;
    state_ = State::kEnded;
    shutdown(socket_, SHUT_RDWR);
  }
  if (written) drop_later(*written);
}

}  // namespace jigsaw
