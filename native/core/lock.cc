#include "core/lock.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

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

bool Users::add(bool& locked) {
  if (count_ == 0) {
    if (!lock_.lock(kind_)) return false;
    locked = true;
  }
  count_++;
  return true;
}

void Users::remove() {
  if (--count_ == 0) lock_.unlock();
}

}  // namespace jigsaw
