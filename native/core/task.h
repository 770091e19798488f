// A task: its queue, from which batches go to the workers on its route.
#pragma once

#include <memory>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "core/batch_delay.h"
#include "core/estimates.h"
#include "core/generation.h"
#include "core/job.h"
#include "core/load_balancer.h"
#include "core/metrics.h"
#include "core/queue.h"
#include "core/spec.h"
#include "core/task_route.h"

namespace jigsaw {

class Engine;
class Front;
struct Call;
struct Work;

// A task of a front. The front owns it. All functions require the engine's lock.
class Task {
 public:
  Task(Engine& engine, Front& front, const TaskSpec& spec, size_t index);
  ~Task();

  const TaskSpec& spec() const { return spec_; }
  Front& front() { return front_; }
  TaskMetrics& metrics() { return metrics_; }
  size_t index() const { return index_; }

  // Queues a job, or refuses it if it cannot be answered in time.
  void enqueue(Job& job, Work& work, Time at);

  // Queues a piece again whose call failed.
  void put_back(Piece piece);

  // Sends batches to workers with free capacity, and refuses jobs that are late.
  void dispatch(Work& work, Time at);

  // Returns the time at which `dispatch` must be called even if no event occurs; kNever for none.
  Time wake_time() const { return wake_; }

  // Returns true if jobs wait in the queue.
  bool has_waiting() const { return !queue_.empty(); }

  // Returns true if the queue can fill the largest batch of the workers.
  bool has_full_batch() const { return queue_.items() >= route_.largest_batch(); }

  // Returns the sort key of the job at the head of the queue; kNever for an empty queue.
  Time head_order() { return queue_.empty() ? kNever : queue_.head().order; }

  // Expected waiting time, in nanoseconds, of a job that arrives now.
  double expected_wait(Time at);

  // Service time, in nanoseconds, of one item on the fastest worker.
  double min_service_time(Time at);

  // Expected sojourn time (waiting and service) of a job in nanoseconds, at the high end of recent values.
  double sojourn_high(Time at);

  // Records the sojourn time of a job that leaves the task at time `until`.
  void record_sojourn(const Job& job, Time until);

  // Returns true if the backlog fills all workers and keeps them busy for about `batch` nanoseconds or longer. If a
  // predecessor then sent a batch of this duration, its results would only wait here.
  bool is_full(double batch, Time at);

  // Service time of a full batch on the slowest worker in nanoseconds, at the high end.
  double max_batch_time(Time at);

  // Longest latency SLO of the route's entries, in milliseconds; 0 if none has one.
  double longest_slo_ms() const { return route_.longest_slo_ms(); }

  // Returns the generations of open entries whose workers are usable.
  GenerationSet served(Time at);

  // Returns the time since which no worker that may answer such requests can be reached; kNever if one can.
  Time unreachable_since(GenerationSet generations, Time at);

  // Notes that a call is expected to end at its `expected_end`, that this time is about to change, and that the call
  // has ended or failed, respectively.
  void expect_end(const Call& call);
  void forget_end(const Call& call);
  void end_expectation(const Call& call);

  // Adds the items of a call that is sent early, or removes them if the number is negative.
  void add_early_items(int64_t items) { early_items_ += items; }

  // Returns the first expected end of a call in flight at this time or later; kNever if there is none.
  Time expected_end(Time from) const;

  // Notes that this many requests are on their way to the task.
  void announce(int64_t requests, Time at) { delay_.announce(requests, at); }

  // Returns true if a batch waits for more requests.
  bool waits() const { return delay_.end() != kNever; }

  // Notes that a call to a worker has failed. The reason is for error messages.
  void note_failure(std::string reason);

  // Reads the route file if it has changed. Returns true if the route was replaced.
  bool refresh_route();

  // Sets the gauges of the queue and of the slots.
  void update_gauges(Time at);

  // Returns true if the task sends nothing because a follower is full.
  bool blocked() const { return blocked_; }

 private:
  // Sets the time of the next `dispatch` without an event.
  void schedule_wake(Time at);
  // Binds a request to a generation if the route weights its generations and the request is bound to none yet.
  void draw(Flow& flow, Time at);
  // Returns one of these generations by the weights; nullptr if none of them has a weight.
  std::shared_ptr<Generation> drawn(GenerationSet generations);
  // Returns true if a batch for this entry waits for more requests. `first` is the first piece of the batch, and
  // `generations` are those that may answer it.
  bool waits_for_more(const Piece& first, const Entry& entry, GenerationSet generations, Time at);
  // Returns true if another slot than the one that this entry offers is free for requests of these generations.
  bool has_other_slot(const Entry& entry, GenerationSet generations, Time at) const;
  // Returns the entry whose worker may get an early call that begins with this piece; nullptr if there is none.
  // Sets `slot_at` to the time from which on the worker is expected to have a slot for it.
  const Entry* choose_busy(const Piece& first, GenerationSet generations, Time at, Time& slot_at);
  // Returns the time at which the next early call may be sent; kNever if there is none.
  Time next_early_call(Time at) const;
  // Returns true if the worker of a call may get an early call shortly before the call ends.
  bool may_precede_early_call(const Call& call, Time at) const;
  // Ends the use of a piece whose request has ended, is cancelled or is late. Returns true if it did so.
  bool drop_if_stale(Piece& piece, Work& work, Time at);
  // Returns true if a job can no longer be answered in time.
  bool is_late(const Job& job, Time at);
  // Fails the request of a piece that is late.
  void refuse(Piece& piece, Work& work, Time at);

  Engine& engine_;
  Front& front_;
  const TaskSpec& spec_;
  const size_t index_;
  TaskMetrics metrics_;
  Queue queue_;
  TaskRoute route_;
  Estimates estimates_;
  SojournTimes sojourns_;
  LoadBalancer balancer_;
  BatchDelay delay_;
  std::set<std::pair<Time, const Call*>> expected_ends_;  // Calls in flight by the expected end.
  int64_t early_items_ = 0;                               // Items of early calls, which wait like those in the queue.
  std::minstd_rand random_{std::random_device{}()};
  Time wake_ = kNever;
  std::string last_failure_;
  bool blocked_ = false;  // True if nothing is sent because a follower is full.
  Time blocked_since_ = kNever;
};

}  // namespace jigsaw
