#include "core/estimates.h"

#include <algorithm>
#include <cmath>

namespace jigsaw {
namespace {

// Maximum age of estimates of service times and throughput.
constexpr Time kEstimateMaxAge = 10 * kMillisecond;

// Age after which sojourn times are ignored, because no job has left the task since.
constexpr Time kSojournMaxAge = kSecond;

// Sojourn times are clipped at this multiple of the expected one.
constexpr double kMaxSojournRatio = 4;

}  // namespace

void Estimates::update(Time at) {
  if (updated_ && at < updated_ + kEstimateMaxAge) return;
  updated_ = at;
  min_service_ns_ = max_service_ns_ = 0;
  items_per_ns_ = 0;
  usable_ = reachable_ = {};
  bool any_usable = false;
  for (const Entry& entry : route_.entries()) {
    if (entry.worker->unreachable_since(at) == kNever) reachable_.add(entry);
    if (!entry.is_usable(at)) continue;
    usable_.add(entry);
    double least = entry.worker->service.mean(1);
    if (!any_usable || least < min_service_ns_) min_service_ns_ = least;
    max_service_ns_ = std::max(max_service_ns_, entry.worker->service.high(entry.limit));
    any_usable = true;
    double mean = entry.worker->service.mean(entry.limit);
    if (mean > 0) items_per_ns_ += double(entry.limit) * double(entry.capacity) / mean;
  }
}

double SojournTimes::high(Time at) {
  // Forget old values: if they cause all jobs to be refused, no job would ever correct them.
  if (mean_ > 0 && at > updated_ + kSojournMaxAge) mean_ = deviation_ = 0;
  return mean_ > 0 ? mean_ + deviation_ : 0;
}

void SojournTimes::record(double sojourn, double expected, Time until) {
  constexpr double kSmoothing = 0.05;
  if (mean_ > 0) expected = mean_;
  // A host that is busy for a moment, or a first call, does not mean that the task is slow.
  if (expected > 0) sojourn = std::min(sojourn, kMaxSojournRatio * expected);
  updated_ = until;
  if (mean_ == 0) {
    mean_ = sojourn;
    return;
  }
  deviation_ += kSmoothing * (std::abs(sojourn - mean_) - deviation_);
  mean_ += kSmoothing * (sojourn - mean_);
}

}  // namespace jigsaw
