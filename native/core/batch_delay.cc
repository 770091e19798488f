#include "core/batch_delay.h"

#include <algorithm>

namespace jigsaw {
namespace {

// Maximum time between two requests of a burst. A client on the same machine sends its next request within 20 to 200 us
// of an answer.
constexpr Time kBurstGap = 200'000;

// Batches wait for bursts if at least this share of the recent batches was followed by another request of a burst.
constexpr double kMinBursts = 0.2;

// Time within which announced requests arrive. Results may stay away, because a client can request the outputs of the
// first steps only.
constexpr Time kTransit = 500'000;

}  // namespace

bool BatchDelay::waits(Time longest, Time latest, std::optional<Time> results, Time at) {
  if (since_ == kNever) {
    since_ = at;
    if (watched_since_ != kNever && at >= watched_since_ + kBurstGap) record_burst(false);
    watched_since_ = at;
  }
  end_ = std::min(since_ + longest, latest);
  bool expected = false;
  if (announced_ > 0 && at < announced_at_ + kTransit) {
    end_ = std::min(end_, announced_at_ + kTransit);
    expected = true;
  } else if (results) {
    expected = *results < end_;
  } else if (bursts_ >= kMinBursts) {
    end_ = std::min(end_, std::max(since_, last_arrival_) + kBurstGap);
    expected = true;
  }
  if (!expected || at >= end_) reset();
  return since_ != kNever;
}

void BatchDelay::announce(int64_t requests, Time at) {
  if (at >= announced_at_ + kTransit) announced_ = 0;
  announced_ += requests;
  announced_at_ = at;
}

void BatchDelay::arrived(Time at) {
  last_arrival_ = at;
  // The batch need not guess that an announced request comes.
  if (announced_ > 0)
    announced_--;
  else if (watched_since_ != kNever)
    record_burst(at < watched_since_ + kBurstGap);
}

void BatchDelay::call_ended() {
  // A request that comes now need not wait, so the batch would have waited in vain.
  if (since_ == kNever && watched_since_ != kNever) record_burst(false);
}

void BatchDelay::record_burst(bool found) {
  constexpr double kSmoothing = 1.0 / 16;
  bursts_ += kSmoothing * (double(found) - bursts_);
  watched_since_ = kNever;
}

}  // namespace jigsaw
