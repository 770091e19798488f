// The route of a task: the workers that may get its batches, and the requests that each of them may answer.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/free_entries.h"
#include "core/generation.h"
#include "core/lock.h"
#include "core/metrics.h"
#include "core/spec.h"
#include "core/worker.h"

namespace jigsaw {

class Engine;
class Task;

// An entry of the route, with its worker.
struct Entry {
  RouteEntry route;
  std::shared_ptr<Worker> worker;
  int64_t capacity = 1;                            // Maximum number of concurrent calls, an early one not counted.
  int64_t limit = 1;                               // Maximum number of items in one call.
  size_t variant = 0;                              // Index of the variant in the task's metrics.
  std::shared_ptr<const ServiceMetrics> service;   // Service times of the model at the worker.
  GenerationSet generations = kAnyGeneration;      // Generations whose requests the entry may answer.
  std::vector<std::shared_ptr<Generation>> named;  // The generations that the route names for it.

  // Returns true if the worker gets calls: it is neither in a backoff nor out of service.
  bool is_usable(Time at) const { return !worker->backing_off(at) && !worker->server->condemned(at); }

  // Returns the generation that alone may answer a request once the entry has answered a part of it; nullptr if there
  // are several, or if it was the only one before.
  std::shared_ptr<Generation> newly_only(GenerationSet generations_of_request) const;

  // Returns the time after which a call of this many items counts as hanging. `first_ms` is the task's own limit, in
  // milliseconds: the first call of a batch size may take longer than the route says.
  Time call_timeout(int64_t items, double first_ms) const;
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

// Entries of the route file of a task. Owned by the task; all functions require the engine's lock.
class TaskRoute {
 public:
  // Locks the route, so that the controller does not remove it. `refresh` reads the entries.
  TaskRoute(Engine& engine, Task& task);
  ~TaskRoute();

  // Reads the route file if it has changed. A route of an epoch that is over is refused. Returns true if the entries
  // were replaced.
  bool refresh();

  // Reason why the last route was refused; empty if it was not.
  const std::string& refusal() const { return refusal_; }

  const std::vector<Entry>& entries() const { return entries_; }

  // Entries whose workers have a free slot, usable or not.
  const FreeEntries& free() const { return free_; }

  // Generations of the open entries that have weights.
  const std::vector<Weighted>& weighted() const { return weighted_; }

  // Time at which the entries were replaced.
  Time replaced() const { return replaced_; }

  // Number of items that all workers can process concurrently.
  int64_t capacity() const { return capacity_; }

  // Returns true if an entry is closed.
  bool has_closed() const { return all_.closed; }

  // Largest limit of the entries; 1 if there are none.
  int64_t largest_batch() const { return largest_batch_; }

  // Longest latency SLO of the entries, in milliseconds; 0 if none has one.
  double longest_slo_ms() const;

  // Returns true if an entry may answer requests that these generations may answer. A closed entry may do so only if no
  // open entry may.
  bool may_answer(const Entry& entry, GenerationSet generations) const {
    return (entry.generations & generations) && !(entry.route.closed && (all_.open & generations));
  }

  // Returns true if one of some entries may answer requests that these generations may answer.
  bool covers(const Coverage& entries, GenerationSet generations) const {
    return (entries.open & generations) || ((entries.closed & generations) && !(all_.open & generations));
  }

 private:
  void set(std::vector<RouteEntry> entries);
  Entry entry(RouteEntry route);

  Engine& engine_;
  Task& task_;
  const std::string path_;
  FileLock lock_;  // Locked while the task uses its route.
  std::vector<Entry> entries_;
  FreeEntries free_;
  Coverage all_;  // Generations of all entries.
  std::vector<Weighted> weighted_;
  int64_t capacity_ = 0;
  int64_t largest_batch_ = 1;
  Time replaced_;
  std::string refusal_;
  int64_t inode_ = -1, changed_ns_ = -1, size_ = -1;
};

}  // namespace jigsaw
