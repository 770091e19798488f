// The queue of a task, and which worker takes what comes next.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/job.h"
#include "core/metrics.h"
#include "core/queue.h"
#include "core/spec.h"
#include "core/worker.h"

namespace jigsaw {

class Engine;
class Front;
struct Work;

// A route's entry with the worker that it names.
struct Entry {
  RouteEntry route;
  std::shared_ptr<Worker> worker;
  int64_t capacity = 1;  // Calls under way at a time.
  int64_t limit = 1;     // Items in one call.
  size_t variant = 0;    // Index among the task's metrics.
};

// All of it is called with the engine's lock held.
class Task {
 public:
  Task(Engine& engine, Front& front, const TaskSpec& spec, size_t index);
  ~Task();

  const TaskSpec& spec() const { return spec_; }
  Front& front() { return front_; }
  TaskMetrics& metrics() { return metrics_; }
  size_t index() const { return index_; }

  // Takes a request in, or refuses it where it cannot be answered in time.
  void enqueue(Job& job, Work& work, Time at);

  // Puts pieces back that were sent and not answered.
  void put_back(Piece piece);

  // Sends what waits, as far as workers have room, and refuses what is late.
  void dispatch(Work& work, Time at);

  // When `dispatch` has something to do although nothing happens; kNever for not.
  Time wake() const { return wake_; }

  bool waiting() const { return !queue_.empty(); }

  // Whether as many items wait as the largest batch of its workers has.
  bool has_full_batch() const;

  Time first_order() { return queue_.empty() ? kNever : queue_.top().job->order; }

  // Nanoseconds that a request that comes now is expected to wait, and that its batch takes at least.
  double expected_wait(Time at);
  double min_service_time(Time at);

  // Nanoseconds that a request is expected to stay here, its waiting included, at the high end of what was usual
  // lately.
  double sojourn_high(Time at);

  // A request leaves, or will leave, at a time.
  void record_sojourn(const Job& job, Time until);

  // Whether as much waits here as all workers take at a time, and takes them longer than `batch` nanoseconds: what a
  // task before would be sent, for so long, would only wait here.
  bool is_full(double batch, Time at);

  // Nanoseconds of a full batch on the slowest worker, at the high end.
  double max_batch_time(Time at);

  // A worker failed, or was answered by; keeps what messages tell.
  void note_failure(std::string reason) { last_failure_ = std::move(reason); }

  void update_gauges(Time at);

  bool blocked() const { return blocked_; }

 private:
  // Keeps the parts of the variants where the accuracy is a mean over requests.
  struct Share {
    std::string variant;
    double share = 0;
    double taken = 0;
  };

  bool refresh_route();
  void set_route(std::vector<RouteEntry> entries);
  int choose_worker(const Piece& piece, Time at);
  int choose_among(const Piece& piece, Time at, const std::string* variant, bool retry_failed_servers);
  std::vector<const std::string*> variants_by_share(Time at);
  bool usable(const Entry& entry, Time at) const;
  bool drop_if_stale(Piece& piece, Work& work, Time at);
  bool late(const Job& job, Time at);
  void refuse(Piece& piece, Work& work, Time at);
  void estimate(Time at);

  Engine& engine_;
  Front& front_;
  const TaskSpec& spec_;
  const size_t index_;
  TaskMetrics metrics_;
  Queue queue_;
  std::vector<Entry> entries_;
  std::vector<Share> shares_;
  std::string route_path_;
  int route_lock_ = -1;  // File that is locked as long as the task uses its route.
  int64_t route_inode_ = -1, route_changed_ns_ = -1, route_size_ = -1;
  size_t next_entry_ = 0;
  Time wake_ = kNever;
  std::string last_failure_;
  int64_t total_capacity_ = 0;  // Items that all workers take at a time.
  bool blocked_ = false;        // Nothing is sent, since a task that follows is full.
  // Estimates, renewed now and then.
  Time estimated_ = 0;
  double min_service_ns_ = 0;  // Nanoseconds of a batch of one item on the fastest worker.
  double max_service_ns_ = 0;  // Nanoseconds of a full batch on the slowest worker, at the high end.
  double items_per_ns_ = 0;    // That all usable workers do.
  bool any_usable_ = false;
  Time unreachable_since_ = kNever;  // Since when no worker can be reached; kNever while one can.
  // Mean and mean deviation of how long requests stayed lately, in nanoseconds; 0 where none has.
  double sojourn_mean_ = 0, sojourn_deviation_ = 0;
  Time sojourn_updated_ = 0;  // When the last of them left.
  Time blocked_since_ = kNever;
};

}  // namespace jigsaw
