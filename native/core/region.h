// Shared memory that this process and a worker both map.
#pragma once

#include <string>

#include "core/base.h"

namespace jigsaw {

// A part of a region of shared memory, in bytes.
struct RegionSpan {
  size_t offset = 0;
  size_t size = 0;
};

// A region of POSIX shared memory that this process creates and, when the object is destroyed, unlinks. Only the user
// of this process can open it (mode 0600). Not thread-safe; one owner at a time, by moving it.
class Region {
 public:
  // Creates a region of at least `size` bytes whose name starts with `prefix`. Returns an empty region if that fails.
  // The memory is reserved immediately, so that no later write to it can fail.
  static Region make(const std::string& prefix, size_t size);

  Region() = default;
  Region(Region&& other) noexcept;
  Region& operator=(Region&& other) noexcept;
  ~Region();

  explicit operator bool() const { return data_ != nullptr; }
  const std::string& name() const { return name_; }
  char* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  std::string name_;  // Name without the leading slash.
  char* data_ = nullptr;
  size_t size_ = 0;
};

// A region that another process has created, mapped by this one.
class MappedRegion {
 public:
  // Maps the first `size` bytes of the region with this key, which is its name after a slash. `name` is used in errors.
  // Throws std::runtime_error.
  MappedRegion(std::string name, const std::string& key, size_t size);
  ~MappedRegion();
  MappedRegion(const MappedRegion&) = delete;
  MappedRegion& operator=(const MappedRegion&) = delete;

  const std::string& name() const { return name_; }

  // Returns the memory of a part of the region. Throws std::runtime_error if the region has no such part.
  char* at(const RegionSpan& span) const;

 private:
  const std::string name_;
  char* data_ = nullptr;
  const size_t size_;
};

}  // namespace jigsaw
