// Decides whether a batch waits for more requests while a worker is free.
#pragma once

#include <cstdint>
#include <optional>

#include "core/base.h"

namespace jigsaw {

// A larger batch takes little longer, and a request that comes just after a batch was sent waits until that batch has
// ended. So a batch waits if more requests are expected soon: those that were announced, the results of a preceding
// task's call that is about to end, or requests of clients, which often come in bursts because a batch answers many
// clients at once. Owned by the task; all functions require the engine's lock.
class BatchDelay {
 public:
  // Returns true if the batch waits, and notes since when. Called whenever a batch could be sent that could be larger.
  // It waits for at most `longest`, and not beyond `latest`. `results` is the time at which preceding tasks are
  // expected to have results for this one, kNever if they are not; nothing if the requests come from clients.
  bool waits(Time longest, Time latest, std::optional<Time> results, Time at);

  // Notes that no batch waits any longer: it was sent, or cannot be sent now.
  void reset() { since_ = kNever; }

  // Time at which the wait ends at the latest; kNever if no batch waits.
  Time end() const { return since_ == kNever ? kNever : end_; }

  // Notes that this many requests are on their way to the task.
  void announce(int64_t requests, Time at);

  // Notes that a request has arrived at the task.
  void arrived(Time at);

  // Notes that a call of the task has ended.
  void call_ended();

 private:
  void record_burst(bool found);

  Time since_ = kNever;  // Time since which the batch waits.
  Time end_ = kNever;
  int64_t announced_ = 0;  // Number of announced requests that have not arrived.
  Time announced_at_ = 0;
  Time last_arrival_ = 0;
  Time watched_since_ = kNever;  // Last time at which a batch could be sent, until it is known whether one followed.
  double bursts_ = 0;            // Moving mean: share of these times that a request followed soon.
};

}  // namespace jigsaw
