// A front: a model of the gateway that executes a task graph, or one task of it, on workers.
#pragma once

#include <atomic>
#include <condition_variable>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/flow.h"
#include "core/spec.h"
#include "core/task.h"
#include "core/trace_context.h"

namespace jigsaw {

class Engine;
struct GraphMetrics;

// Properties of a request other than its tensors.
struct RequestOptions {
  Time arrival = 0;            // Time of arrival; 0 for now.
  Time deadline = 0;           // Deadline that an earlier step of a pipeline has set; 0 for none.
  uint64_t timeout_us = 0;     // Timeout in microseconds that the client has set; 0 for none.
  int priority = 0;            // Requests with a larger priority are served first.
  TraceHeaders trace;          // Headers of the client's trace.
  std::vector<size_t> wanted;  // Indices of the requested outputs of the front; empty for all.
};

// Executes the requests to one model. The host owns it; the engine must outlive it. Any thread may call `submit`; the
// other functions require the engine's lock.
class Front {
 public:
  // Throws FormatError if the specification is invalid.
  Front(Engine& engine, std::string model, std::string_view spec);

  // Waits until all requests have ended.
  ~Front();

  const FrontSpec& spec() const { return spec_; }
  const std::string& model() const { return model_; }
  Engine& engine() { return engine_; }
  const std::vector<std::unique_ptr<Task>>& tasks() const { return tasks_; }
  GraphMetrics& metrics() { return *metrics_; }

  // Latency within which requests without a timeout are answered: the longest SLO of the front and of the entries on
  // its routes. While the routes lead to the workers of two plans, those of one may be too slow for the SLO of the
  // other. Any thread may call this.
  Time slo() const { return Time(slo_ms_ * 1e6); }

  // Notes that the route of a task was replaced.
  void route_replaced();

  // Executes a request. The inputs are in the order of the specification. Returns immediately; `request` gets the
  // response.
  void submit(Request* request, std::vector<Value> inputs, RequestOptions options);

  // Notes that a flow was deleted.
  void released();

  // Returns true if a follower of a task has such a backlog that another batch of the task would only wait there.
  bool followers_full(size_t task, Time at) const;

  // Returns the time at which the predecessors of a task are expected to have results for it: the first expected end of
  // a call at `from` or later; kNever if there is none. Returns nothing if the task has no predecessors.
  std::optional<Time> next_results(size_t task, Time from) const;

  // Notes that a task has answered this many requests. If its followers have fronts of their own, the server passes the
  // requests on to these.
  void announce_results(size_t task, int64_t requests, Time at);

  // Marks the followers of a task whose batches wait for dispatch, because a call of the task has ended.
  void consider_waiting_followers(size_t task, Work& work) const;

  // Marks the predecessors of a task for dispatch if they were blocked and no longer are.
  void unblock_predecessors(size_t task, Work& work, Time at);

  // Returns the time that a request needs after a task: the longest path through its followers, by their expected
  // waiting and minimum service times.
  Time remaining_time(size_t task) const;

  // Like `remaining_time`, but by the measured sojourn times at the followers, at the high end.
  Time remaining_time_high(size_t task) const;

 private:
  friend class Flow;

  // Longest path through the followers, by the time that a request spends at each of them. While the front of a
  // follower is absent, the estimate is `rest_ms` of the specification times `profile_factor`.
  using TimeAtTask = double (*)(Task&, Time);
  Time remaining_time(size_t task, double profile_factor, TimeAtTask time_at_task) const;
  Time remaining_time_of_fronts(size_t task, double profile_factor, TimeAtTask time_at_task, Time at,
                                std::map<const Task*, Time>& visited) const;

  // Returns the follower with this name, which is in a front of its own; nullptr if the front is absent.
  Task* find_follower(const std::string& name) const;

  // Call `visit` for each task that has a task of this front as a follower, and for each follower of the task.
  template <typename Visit>
  void for_each_predecessor(size_t task, Visit visit) const;
  template <typename Visit>
  void for_each_follower(size_t task, Visit visit) const;

  // Returns the number of tasks that have a task of this front as a follower.
  size_t predecessors(size_t task) const;

  const FlowPlan& plan(const std::vector<size_t>& wanted);
  void split(Request* request, std::vector<Value> inputs, const RequestOptions& options);
  // Starts a flow. `binding` is nullptr if it is the only flow of its request.
  void begin(Request* request, std::vector<Value> inputs, const RequestOptions& options,
             std::shared_ptr<Binding> binding);

  Engine& engine_;
  std::string model_;
  FrontSpec spec_;
  std::atomic<double> slo_ms_;
  GraphMetrics* metrics_;
  std::vector<std::unique_ptr<Task>> tasks_;
  std::vector<std::vector<size_t>> followers_;  // Tasks that consume a tensor of each task.
  std::map<std::vector<size_t>, FlowPlan> plans_;
  size_t flows_ = 0;  // Number of flows in flight.
  std::condition_variable idle_;
};

}  // namespace jigsaw
