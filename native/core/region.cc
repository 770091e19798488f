#include "core/region.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <bit>
#include <cerrno>
#include <cstring>
#include <stdexcept>
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

MappedRegion::MappedRegion(std::string name, const std::string& key, size_t size)
    : name_(std::move(name)), size_(size) {
  int file = shm_open(key.c_str(), O_RDWR | O_CLOEXEC, 0);
  if (file < 0) throw std::runtime_error("cannot open the region " + name_ + ": " + strerror(errno));
  struct stat status{};
  bool fits = fstat(file, &status) == 0 && size > 0 && size_t(status.st_size) >= size;
  void* at = fits ? mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0) : MAP_FAILED;
  close(file);
  if (at == MAP_FAILED)
    throw std::runtime_error("cannot map " + std::to_string(size) + " bytes of the region " + name_);
  data_ = static_cast<char*>(at);
}

MappedRegion::~MappedRegion() { munmap(data_, size_); }

char* MappedRegion::at(const RegionSpan& span) const {
  if (span.offset > size_ || span.size > size_ - span.offset)
    throw std::runtime_error("a tensor is outside the region " + name_);
  return data_ + span.offset;
}

}  // namespace jigsaw
