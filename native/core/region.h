// Shared memory that this process and a worker map.
#pragma once

#include <string>

#include "core/base.h"

namespace jigsaw {

// A region of POSIX shared memory, made and removed by this process. Its name is readable by this user alone.
class Region {
 public:
  // Makes a region of at least `size` bytes whose name starts with `prefix`. Returns an empty region where there is no
  // room: its memory is reserved when it is made, so that no write to it can fail later.
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
  std::string name_;  // Without the leading slash.
  char* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace jigsaw
