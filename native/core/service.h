// Service times of batches at one model of one worker, by batch size.
#pragma once

#include <array>

#include "core/base.h"
#include "core/spec.h"

namespace jigsaw {

// Exponentially weighted mean and mean absolute deviation of service times, in buckets of batch sizes between powers of
// two. The estimate of a size without measurements is the profile, scaled by the measured ratio to the profile. Owned
// by its worker; guarded by the engine's lock.
class ServiceTimes {
 public:
  // Sets the profiled service times of the model.
  void profile(const Durations& profile_ms) { profile_ms_ = profile_ms; }

  // Returns the profiled service time of a batch in nanoseconds; 0 without a profile.
  double profiled(double items) const;

  // Records the service time of a batch.
  void add(int64_t items, Time took);

  // Returns the expected service time of a batch in nanoseconds; 0 if there are neither measurements nor a profile.
  double mean(int64_t items) const;

  // Returns a service time in nanoseconds that few batches exceed: the mean plus twice the mean deviation.
  double high(int64_t items) const;

 private:
  struct Bucket {
    double mean = 0, deviation = 0, items = 0;
    uint32_t count = 0;
  };
  static constexpr size_t kBuckets = 21;

  static size_t bucket_of(int64_t items);

  std::array<Bucket, kBuckets> buckets_{};
  Durations profile_ms_;
  double profile_ratio_ = 1;
};

}  // namespace jigsaw
