// How long batches take at one model of one worker, by their size.
#pragma once

#include <array>

#include "core/base.h"
#include "core/spec.h"

namespace jigsaw {

// Exponentially weighted mean and mean deviation of the time of batches, for sizes between powers of two. What was not
// measured yet is taken from the profile, corrected by how the profile compares with what was measured.
class ServiceTimes {
 public:
  void profile(const Durations& profile_ms) { profile_ms_ = profile_ms; }

  void add(int64_t items, Time took);

  // Nanoseconds that a batch is expected to take; 0 where nothing is known.
  double mean(int64_t items) const;

  // Nanoseconds that few batches exceed: the mean and twice the mean deviation.
  double high(int64_t items) const;

 private:
  struct Bucket {
    double mean = 0, deviation = 0, items = 0;
    uint32_t count = 0;
  };
  static constexpr size_t kBuckets = 21;

  static size_t bucket_of(int64_t items);
  double profiled(double items) const;

  std::array<Bucket, kBuckets> buckets_{};
  Durations profile_ms_;
  double profile_ratio_ = 1;
};

}  // namespace jigsaw
