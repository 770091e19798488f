// Epochs of controllers, by which the gateway refuses routes of a controller that another one has replaced.
#pragma once

#include <cstdint>
#include <string>

namespace jigsaw {

// The highest epoch of the controllers whose routes this process has read. A file has it, too: controllers read there
// that they have been replaced, and the gateway's next process starts from it. Guarded by the engine's lock.
class HighestEpoch {
 public:
  explicit HighestEpoch(std::string file);

  int64_t value() const { return value_; }

  // Takes note of a route's epoch; 0 is that of routes without one, which are always admitted. Returns false if the
  // epoch is over.
  bool admit(int64_t epoch);

 private:
  const std::string file_;
  int64_t value_ = 0;
};

}  // namespace jigsaw
