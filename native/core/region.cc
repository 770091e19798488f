#include "core/region.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <bit>
#include <utility>

namespace jigsaw {

Region Region::make(const std::string& prefix, size_t size) {
  static std::atomic<uint64_t> number{0};
  // Names are never reused, not even by the next process, because a worker may still have the old region registered.
  static const uint64_t process = random_number();
  Region region;
  // Add a quarter, because the next batch may be a little larger, and round up to whole MiB.
  size = (size + size / 4 + 0xFFFFF) & ~size_t{0xFFFFF};
  std::string name = prefix + std::to_string(process) + "-" + std::to_string(number++);
  std::string path = "/" + name;
  int file = shm_open(path.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
  if (file < 0) return region;
  void* at = MAP_FAILED;
  if (posix_fallocate(file, 0, off_t(size)) == 0) at = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (at == MAP_FAILED) {
    shm_unlink(path.c_str());
    return region;
  }
  region.name_ = std::move(name);
  region.data_ = static_cast<char*>(at);
  region.size_ = size;
  return region;
}

Region::Region(Region&& other) noexcept
    : name_(std::exchange(other.name_, {})),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

Region& Region::operator=(Region&& other) noexcept {
  std::swap(name_, other.name_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

Region::~Region() {
  if (!data_) return;
  munmap(data_, size_);
  shm_unlink(("/" + name_).c_str());
}

}  // namespace jigsaw
