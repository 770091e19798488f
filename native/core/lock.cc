#include "core/lock.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

namespace jigsaw {

FileLock::~FileLock() {
  if (file_ >= 0) close(file_);
}

bool FileLock::lock(Kind kind) {
  // Open a deleted file again: a lock on the old one would exclude nobody.
  struct stat status;
  if (file_ >= 0 && (fstat(file_, &status) != 0 || status.st_nlink == 0)) {
    close(file_);
    file_ = -1;
  }
  if (file_ < 0) {
    std::string folder = path_.substr(0, path_.rfind('/'));
    mkdir(folder.substr(0, folder.rfind('/')).c_str(), 0700);
    mkdir(folder.c_str(), 0700);
    file_ = open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (file_ < 0) return false;
  }
  return set(kind == Kind::kShared ? F_RDLCK : F_WRLCK);
}

void FileLock::unlock() { set(F_UNLCK); }

bool FileLock::set(short type) {
  struct flock lock{};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = 0;
  lock.l_len = 1;
  return fcntl(file_, F_OFD_SETLK, &lock) == 0;
}

bool Users::add(Time at, bool& locked) {
  if (!locked_) {
    if (!lock_.lock(kind_)) return false;
    locked_ = at;
    locked = true;
  }
  count_++;
  return true;
}

void Users::remove(Time at) {
  if (--count_ > 0) return;
  if (at >= locked_ + KeptLocks::kMaxKept)
    unlock();
  else
    kept_locks_.keep(*this);
}

void Users::unlock() {
  lock_.unlock();
  locked_ = 0;
}

void KeptLocks::keep(Users& users) {
  if (users.kept_) return;
  users.kept_ = true;
  kept_.push_back(users.weak_from_this());
  wake_at_(users.locked_ + kMaxKept);
}

Time KeptLocks::release(Time at) {
  Time next = kNever;
  std::erase_if(kept_, [&](const std::weak_ptr<Users>& item) {
    std::shared_ptr<Users> users = item.lock();
    if (!users) return true;
    if (users->count_ == 0 && users->locked_ && at >= users->locked_ + kMaxKept) users->unlock();
    // With users, the last of them returns it.
    users->kept_ = users->count_ == 0 && users->locked_;
    if (users->kept_) next = std::min(next, users->locked_ + kMaxKept);
    return !users->kept_;
  });
  return next;
}

}  // namespace jigsaw
