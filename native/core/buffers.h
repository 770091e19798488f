// Buffers that a socket sends or receives one after the other.
#pragma once

#include <sys/socket.h>
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace jigsaw {

// Returns the argument of sendmsg() and recvmsg() for some buffers. It has no more of them than the kernel takes.
msghdr message_of(std::span<iovec> buffers);

// A list of buffers of which a part has been sent or received.
class Buffers {
 public:
  // Removes all buffers. Returns the list, so that others can be added.
  std::vector<iovec>& clear() {
    next_ = 0;
    buffers_.clear();
    return buffers_;
  }

  // Replaces all buffers.
  void assign(std::vector<iovec> buffers) {
    next_ = 0;
    buffers_ = std::move(buffers);
  }

  // Returns true if nothing is left.
  bool empty() const { return next_ == buffers_.size(); }

  // Returns what is left.
  std::span<iovec> rest() { return {buffers_.data() + next_, buffers_.size() - next_}; }

  // Skips this many bytes, and the empty buffers that follow.
  void skip(size_t count);

  // Sends to a socket until nothing is left, the socket accepts no more, or at least `enough` bytes were sent. Never
  // blocks. Returns 0, or the error number if the connection broke.
  int send(int socket, size_t enough = SIZE_MAX);

 private:
  std::vector<iovec> buffers_;
  size_t next_ = 0;  // Index of the first buffer with bytes that are left.
};

}  // namespace jigsaw
