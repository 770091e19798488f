// A file descriptor with an owner.
#pragma once

#include <unistd.h>

namespace jigsaw {

// A file descriptor, which is closed with the object.
class File {
 public:
  File() = default;
  ~File() { close(); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  void open(int descriptor) { descriptor_ = descriptor; }
  void close() {
    if (descriptor_ >= 0) ::close(descriptor_);
    descriptor_ = -1;
  }
  operator int() const { return descriptor_; }

 private:
  int descriptor_ = -1;
};

}  // namespace jigsaw
