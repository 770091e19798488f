#include "core/service.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace jigsaw {
namespace {

// Weight of a new value in the moving averages.
constexpr double kSmoothing = 0.1;

// Number of measured batches whose weight the profile has in the average with the first ones.
constexpr uint32_t kProfileCount = 4;

// Values are clipped at this multiple of the mean, so that an outlier changes it little.
constexpr double kMaxRatio = 4;

}  // namespace

size_t ServiceTimes::bucket_of(int64_t items) {
  return std::min(size_t(std::bit_width(uint64_t(std::max<int64_t>(1, items) - 1))), kBuckets - 1);
}

void ServiceTimes::add(int64_t items, Time took) {
  Bucket& bucket = buckets_[bucket_of(items)];
  double value = double(took);
  if (double profile_time = profiled(double(items)); profile_time > 0)
    profile_ratio_ += kSmoothing * (std::min(value / profile_time, kMaxRatio * profile_ratio_) - profile_ratio_);
  if (bucket.count == 0) {
    // The first batches may be slow because they are the first: average them with the previous estimate.
    double expected = mean(items);
    bucket.mean = expected > 0 ? expected : value;
    bucket.items = double(items);
    bucket.deviation = bucket.mean / 8;
    bucket.count = profiled(double(items)) > 0 ? kProfileCount : 1;
  }
  // Early values have a larger weight, so that one slow first batch is soon forgotten. Later, a single value from a
  // host that was busy for a moment changes the mean little.
  double weight = std::max(kSmoothing, 1.0 / ++bucket.count);
  value = std::min(value, kMaxRatio * bucket.mean);
  bucket.deviation += weight * (std::abs(value - bucket.mean) - bucket.deviation);
  bucket.mean += weight * (value - bucket.mean);
  bucket.items += weight * (double(items) - bucket.items);
}

double ServiceTimes::mean(int64_t items) const {
  size_t owner = bucket_of(items);
  if (buckets_[owner].count) return buckets_[owner].mean;
  if (double profile_time = profiled(double(items)); profile_time > 0) return profile_time * profile_ratio_;
  for (size_t below = owner; below-- > 0;)
    if (buckets_[below].count) return buckets_[below].mean * std::max(1.0, double(items) / buckets_[below].items);
  for (size_t above = owner + 1; above < kBuckets; above++)
    if (buckets_[above].count) return buckets_[above].mean;
  return 0;
}

double ServiceTimes::high(int64_t items) const {
  const Bucket& owner = buckets_[bucket_of(items)];
  return owner.count ? owner.mean + 2 * owner.deviation : mean(items);
}

double ServiceTimes::profiled(double items) const {
  if (profile_ms_.empty()) return 0;
  auto above =
      std::find_if(profile_ms_.begin(), profile_ms_.end(), [&](const auto& row) { return double(row.first) >= items; });
  if (above == profile_ms_.end()) return 1e6 * profile_ms_.back().second * items / double(profile_ms_.back().first);
  if (above == profile_ms_.begin() || double(above->first) == items) return 1e6 * above->second;
  auto below = above - 1;
  double part = (items - double(below->first)) / double(above->first - below->first);
  return 1e6 * (below->second + part * (above->second - below->second));
}

}  // namespace jigsaw
