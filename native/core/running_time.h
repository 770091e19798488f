// Time as far as the event loop has run.
#pragma once

#include <algorithm>

#include "core/base.h"

namespace jigsaw {

// Measures time by the event loop's own steps. While the process is stopped (SIGSTOP, a frozen container or machine),
// workers answer and nobody reads the answers. Such a time must not count against them, so a step counts for at most
// kMaxStep. The loop takes several steps a second otherwise. Guarded by the engine's lock.
class RunningTime {
 public:
  static constexpr Time kMaxStep = 500 * kMillisecond;

  // Takes a step of the loop. Returns false if the process was stopped before it: answers may be waiting.
  bool step(Time now) {
    bool ran = stepped_ == 0 || now - stepped_ <= kMaxStep;
    elapsed_ = at(now);
    stepped_ = now;
    return ran;
  }

  // Returns the running time at a time after the last step.
  Time at(Time now) const { return stepped_ ? elapsed_ + std::min(now - std::min(now, stepped_), kMaxStep) : 0; }

 private:
  Time elapsed_ = 0;
  Time stepped_ = 0;  // Time of the last step; 0 before the first one.
};

}  // namespace jigsaw
