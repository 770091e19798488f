// A task: its queue, the workers on its route, and the choice of the worker for the next batch.
#pragma once

#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "core/generation.h"
#include "core/job.h"
#include "core/lock.h"
#include "core/metrics.h"
#include "core/queue.h"
#include "core/spec.h"
#include "core/worker.h"

namespace jigsaw {

// Independence of a server from those that failed on a piece, in ascending order.
enum class Independence : uint8_t {
  kNone,    // It failed itself.
  kServer,  // Another server of its host failed.
  kNode,    // Only servers of other hosts failed, or none.
};

class Engine;
class Front;
struct Work;

// An entry of the route, with its worker.
struct Entry {
  RouteEntry route;
  std::shared_ptr<Worker> worker;
  int64_t capacity = 1;                            // Maximum number of concurrent calls.
  int64_t limit = 1;                               // Maximum number of items in one call.
  size_t variant = 0;                              // Index of the variant in the task's metrics.
  std::shared_ptr<const ServiceMetrics> service;   // Service times of the model at the worker.
  GenerationSet generations = kAnyGeneration;      // Generations whose requests the entry may answer.
  std::vector<std::shared_ptr<Generation>> named;  // The generations that the route names for it.

  // Returns the generation that alone may answer a request once the entry has answered a part of it; nullptr if there
  // are several, or if it was the only one before.
  std::shared_ptr<Generation> newly_only(GenerationSet generations_of_request) const;
};

// Generations of some entries of a route.
struct Coverage {
  GenerationSet open = 0, closed = 0;  // Generations of the open and of the closed entries.

  void add(const Entry& entry) { (entry.route.closed ? closed : open) |= entry.generations; }
};

// A generation to which a share of the requests is bound when they arrive.
struct Weighted {
  std::shared_ptr<Generation> generation;
  double weight = 0;
};

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
  bool has_full_batch() const;

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
  double longest_slo_ms() const;

  // Returns true if an open entry of a generation has a worker that can be used.
  bool serves(GenerationSet generation, Time at);

  // Remembers the last failure of a worker for error messages.
  void note_failure(std::string reason) { last_failure_ = std::move(reason); }

  // Reads the route file if it has changed. A route of an epoch that is over is refused. Returns true if the route was
  // replaced.
  bool refresh_route();

  // Sets the gauges of the queue and of the slots.
  void update_gauges(Time at);

  // Returns true if the task sends nothing because a follower is full.
  bool blocked() const { return blocked_; }

 private:
  // Share of a variant in the task's items, for graphs whose accuracy is a mean over requests.
  struct Share {
    std::string variant;
    double share = 0;  // Fraction of the items that the variant should receive.
    double taken = 0;  // Number of items that it has received.
  };

  using Shares = std::vector<Share>;

  void set_route(std::vector<RouteEntry> entries);
  // Binds a request to a generation if the route weights its generations and the request is bound to none yet.
  void draw(Binding& binding, Time at);
  // Returns a generation by the weights, among those that may answer such requests and whose workers can serve at all
  // tasks of the front; nullptr if there is none.
  std::shared_ptr<Generation> drawn(GenerationSet generations, Time at);
  // Returns true if an entry may answer requests that these generations may answer. A closed entry may do so only if no
  // open entry may.
  bool may_answer(const Entry& entry, GenerationSet generations) const;
  // Returns true if one of some entries may answer requests that these generations may answer.
  bool covers(const Coverage& entries, GenerationSet generations) const;
  // Returns the time since which no worker that may answer such requests can be reached; kNever if one can.
  Time unreachable_since(GenerationSet generations, Time at);
  // Returns the index of the entry whose worker gets the piece; -1 if no worker is free.
  int choose_worker(const Piece& piece, GenerationSet generations, Time at);
  // Chooses among the workers of one variant, or of all variants if `variant` is nullptr, that are at least this
  // independent of those that failed on the piece.
  int choose_among(const Piece& piece, GenerationSet generations, Time at, const std::string* variant,
                   Independence least);
  // Returns the shares of the variants whose entries may answer such requests, with counts of 0.
  Shares make_shares(GenerationSet generations) const;
  // Returns these shares with the counts so far.
  Shares& shares_of(GenerationSet generations);
  // Returns the variants that may get the next batch, the one furthest behind its share first.
  std::vector<const std::string*> variants_by_share(Shares& shares, GenerationSet generations, Time at);
  bool is_usable(const Entry& entry, Time at) const;
  // Ends the use of a piece whose request has ended, is cancelled or is late. Returns true if it did so.
  bool drop_if_stale(Piece& piece, Work& work, Time at);
  // Returns true if a job can no longer be answered in time.
  bool is_late(const Job& job, Time at);
  // Fails the request of a piece that is late.
  void refuse(Piece& piece, Work& work, Time at);
  void update_estimates(Time at);

  Engine& engine_;
  Front& front_;
  const TaskSpec& spec_;
  const size_t index_;
  TaskMetrics metrics_;
  Queue queue_;
  std::vector<Entry> entries_;
  Coverage all_;                    // Generations of all entries.
  std::vector<Weighted> weighted_;  // Generations of the open entries that have weights.
  std::minstd_rand random_{std::random_device{}()};
  // Shares by the generations that may answer the requests. Requests of different generations have different variants
  // to choose from, so their items are counted separately.
  std::map<GenerationSet, Shares> shares_;
  std::string route_path_;
  FileLock route_lock_;        // Locked while the task uses its route.
  Time route_set_ = 0;         // Time at which the entries were replaced.
  std::string route_refusal_;  // Reason why the last route was refused; empty if it was not.
  int64_t route_inode_ = -1, route_changed_ns_ = -1, route_size_ = -1;
  size_t next_entry_ = 0;  // Start of the next round-robin search for a worker.
  Time wake_ = kNever;
  std::string last_failure_;
  int64_t total_capacity_ = 0;  // Number of items that all workers can process concurrently.
  bool blocked_ = false;        // True if nothing is sent because a follower is full.
  // Estimates, which `estimate` renews from time to time.
  Time estimated_ = 0;
  double min_service_ns_ = 0;  // Service time of one item on the fastest worker, in nanoseconds.
  double max_service_ns_ = 0;  // Service time of a full batch on the slowest worker in nanoseconds, at the high end.
  double items_per_ns_ = 0;    // Throughput of all usable workers, in items per nanosecond.
  Coverage usable_;            // Generations of entries whose workers are usable.
  Coverage reachable_;         // Generations of entries whose workers can be reached.
  // Moving mean and mean deviation of recent sojourn times in nanoseconds; 0 if there are none.
  double sojourn_mean_ = 0, sojourn_deviation_ = 0;
  Time sojourn_updated_ = 0;  // Time of the last recorded sojourn time.
  Time blocked_since_ = kNever;
};

}  // namespace jigsaw
