#include "core/worker.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>

#include "core/connection.h"

namespace jigsaw {
namespace {

constexpr Time kInitialBackoff = 100 * kMillisecond;
constexpr Time kMaxBackoff = 2 * kSecond;

// Returns the bit of a batch size in a set of sizes, which are rounded up to powers of two.
uint32_t size_bit(int64_t items) {
  return uint32_t{1} << std::min<int>(int(std::bit_width(uint64_t(std::max<int64_t>(items, 1) - 1))), 31);
}

// Locks or unlocks the first byte of a file, without waiting. The lock belongs to the open file description: closing
// another descriptor of the file does not release it, and the kernel releases it when this process ends.
bool set_lock(int file, short type) {
  struct flock lock{};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = 0;
  lock.l_len = 1;
  return fcntl(file, F_OFD_SETLK, &lock) == 0;
}

}  // namespace

ServerIdentity ServerIdentity::of_socket(const std::string& path) {
  struct stat status;
  if (stat(path.c_str(), &status) != 0) return {};
  return {status.st_dev, status.st_ino, int64_t(status.st_ctim.tv_sec) * 1'000'000'000 + status.st_ctim.tv_nsec};
}

Server::Server(std::string name, std::string address, bool local)
    : name(std::move(name)), address(std::move(address)), local(local) {}

Server::~Server() = default;

bool Server::condemned(Time at) {
  if (at < identity_checked_ + (local ? kIdentityCheckInterval : kRemoteBackoff) || (!local && !condemned_))
    return condemned_;
  identity_checked_ = at;
  ServerIdentity found = local ? ServerIdentity::of_socket(address) : ServerIdentity{};
  if (!local || (found != ServerIdentity{} && found != identity_)) {
    identity_ = found;
    condemned_ = false;
    epoch++;
  }
  return condemned_;
}

void Server::condemn(Time at) {
  identity_ = local ? ServerIdentity::of_socket(address) : ServerIdentity{};
  condemned_ = true;
  identity_checked_ = at;
}

Worker::Worker(std::shared_ptr<Server> server, std::string model, std::string lock_path)
    : server(std::move(server)), model(std::move(model)), lock_path_(std::move(lock_path)) {}

Worker::~Worker() {
  if (lock_ >= 0) close(lock_);
}

bool Worker::acquire(bool& locked) {
  locked = false;
  if (in_flight_ == 0) {
    // Open a deleted file again: a lock on the old one would exclude nobody.
    struct stat status;
    if (lock_ >= 0 && (fstat(lock_, &status) != 0 || status.st_nlink == 0)) {
      close(lock_);
      lock_ = -1;
    }
    if (lock_ < 0) {
      std::string folder = lock_path_.substr(0, lock_path_.rfind('/'));
      mkdir(folder.substr(0, folder.rfind('/')).c_str(), 0700);
      mkdir(folder.c_str(), 0700);
      lock_ = open(lock_path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
      if (lock_ < 0) return false;
    }
    if (!set_lock(lock_, F_WRLCK)) return false;
    locked = true;
  }
  in_flight_++;
  return true;
}

void Worker::release() {
  if (--in_flight_ == 0 && lock_ >= 0) set_lock(lock_, F_UNLCK);
}

void Worker::failed(Time at) {
  backoff_ = backoff_ ? std::min(2 * backoff_, kMaxBackoff) : kInitialBackoff;
  backoff_until_ = at + backoff_;
  failing_ = true;
  server->epoch++;
}

void Worker::answered(int64_t items, Time took) {
  service.add(items, took);
  backoff_ = 0;
  backoff_until_ = 0;
  failing_ = false;
  if (answered_epoch_ != server->epoch) {
    answered_epoch_ = server->epoch;
    answered_sizes_ = 0;
  }
  answered_sizes_ |= size_bit(items);
}

bool Worker::has_answered(int64_t items) const {
  return answered_epoch_ == server->epoch && (answered_sizes_ & size_bit(items));
}

}  // namespace jigsaw
