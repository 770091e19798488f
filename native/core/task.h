// A task: its queue, the workers on its route, and the choice of the worker for the next batch.
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

// An entry of the route, with its worker.
struct Entry {
  RouteEntry route;
  std::shared_ptr<Worker> worker;
  int64_t capacity = 1;  // Maximum number of concurrent calls.
  int64_t limit = 1;     // Maximum number of items in one call.
  size_t variant = 0;    // Index of the variant in the task's metrics.
};

// Owned by its front. All functions require the engine's lock.
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
  Time wake() const { return wake_; }

  bool waiting() const { return !queue_.empty(); }

  // Returns true if the queue can fill the largest batch of the workers.
  bool has_full_batch() const;

  Time first_order() { return queue_.empty() ? kNever : queue_.top().job->order; }

  // Nanoseconds that a job that arrives now is expected to wait, and the service time of one item on the fastest
  // worker.
  double expected_wait(Time at);
  double min_service_time(Time at);

  // Expected sojourn time (waiting and service) of a job in nanoseconds, at the high end of recent values.
  double sojourn_high(Time at);

  // Records the sojourn time of a job that leaves the task at time `until`.
  void record_sojourn(const Job& job, Time until);

  // Returns true if the backlog fills all workers and takes them nearly `batch` nanoseconds or more. Then the results
  // of a batch of that duration at a predecessor would only wait here.
  bool is_full(double batch, Time at);

  // Service time of a full batch on the slowest worker in nanoseconds, at the high end.
  double max_batch_time(Time at);

  // Remembers the last failure of a worker for error messages.
  void note_failure(std::string reason) { last_failure_ = std::move(reason); }

  void update_gauges(Time at);

  // Returns true if the task sends nothing because a follower is full.
  bool blocked() const { return blocked_; }

 private:
  // Share of a variant in the task's items, for graphs whose accuracy is a mean over requests; `taken` counts its
  // items.
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
  int route_lock_ = -1;  // File descriptor of the file that is locked while the task uses its route.
  int64_t route_inode_ = -1, route_changed_ns_ = -1, route_size_ = -1;
  size_t next_entry_ = 0;
  Time wake_ = kNever;
  std::string last_failure_;
  int64_t total_capacity_ = 0;  // Number of items that all workers can process concurrently.
  bool blocked_ = false;        // True if nothing is sent because a follower is full.
  // Estimates, which `estimate` renews from time to time.
  Time estimated_ = 0;
  double min_service_ns_ = 0;  // Service time of one item on the fastest worker, in nanoseconds.
  double max_service_ns_ = 0;  // Service time of a full batch on the slowest worker in nanoseconds, at the high end.
  double items_per_ns_ = 0;    // Throughput of all usable workers.
  bool any_usable_ = false;
  Time unreachable_since_ = kNever;  // Time at which the last worker became unreachable; kNever while one is reachable.
  // Moving mean and mean deviation of recent sojourn times in nanoseconds; 0 if there are none.
  double sojourn_mean_ = 0, sojourn_deviation_ = 0;
  Time sojourn_updated_ = 0;  // Time of the last recorded sojourn time.
  Time blocked_since_ = kNever;
};

}  // namespace jigsaw
