#include "core/buffers.h"

#include <errno.h>
#include <limits.h>

#include <algorithm>

namespace jigsaw {

msghdr message_of(std::span<iovec> buffers) {
  msghdr message{};
  message.msg_iov = buffers.data();
  message.msg_iovlen = std::min<size_t>(buffers.size(), IOV_MAX);
  return message;
}

void Buffers::skip(size_t count) {
  while (!empty()) {
    iovec& first = buffers_[next_];
    size_t step = std::min(count, first.iov_len);
    first.iov_base = static_cast<char*>(first.iov_base) + step;
    first.iov_len -= step;
    count -= step;
    if (first.iov_len) return;
    next_++;
  }
}

int Buffers::send(int socket, size_t enough) {
  for (size_t sent = 0; !empty() && sent < enough;) {
    msghdr message = message_of(rest());
    ssize_t n = sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n >= 0) {
      skip(size_t(n));
      sent += size_t(n);
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      return 0;
    } else if (errno != EINTR) {
      return errno;
    }
  }
  return 0;
}

}  // namespace jigsaw
