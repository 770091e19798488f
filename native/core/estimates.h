// Estimates of how fast a task serves: service times and throughput of its workers, and recent sojourn times.
#pragma once

#include "core/base.h"
#include "core/task_route.h"

namespace jigsaw {

// Service times and throughput of the usable workers of a route. Renewed from time to time, because many workers make
// this slow. Owned by the task; all functions require the engine's lock.
class Estimates {
 public:
  explicit Estimates(const TaskRoute& route) : route_(route) {}

  // Renews the estimates if they are too old.
  void update(Time at);

  // Makes the next `update` renew the estimates.
  void expire() { updated_ = 0; }

  // Service time of one item on the fastest worker, in nanoseconds.
  double min_service_ns() const { return min_service_ns_; }

  // Service time of a full batch on the slowest worker in nanoseconds, at the high end.
  double max_service_ns() const { return max_service_ns_; }

  // Time in nanoseconds that all usable workers together need for some items; 0 if it is not known.
  double drain_ns(int64_t items) const { return items_per_ns_ > 0 ? double(items) / items_per_ns_ : 0; }

  // Generations of entries whose workers are usable, and of entries whose workers can be reached.
  const Coverage& usable() const { return usable_; }
  const Coverage& reachable() const { return reachable_; }

 private:
  const TaskRoute& route_;
  Time updated_ = 0;
  double min_service_ns_ = 0, max_service_ns_ = 0;
  double items_per_ns_ = 0;  // Throughput of all usable workers.
  Coverage usable_, reachable_;
};

// Moving mean and mean deviation of recent sojourn times, in nanoseconds. Owned by the task; guarded by the engine's
// lock.
class SojournTimes {
 public:
  // Returns a time that few jobs exceed; 0 if there are no recent sojourn times.
  double high(Time at);

  // Records the sojourn time of a job that leaves the task at time `until`. `expected` is what to expect of the first
  // one.
  void record(double sojourn, double expected, Time until);

 private:
  double mean_ = 0, deviation_ = 0;
  Time updated_ = 0;  // Time of the last recorded sojourn time.
};

}  // namespace jigsaw
