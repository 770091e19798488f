// A model of the gateway: a task graph whose tasks are carried out by workers.
#pragma once

#include <condition_variable>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/flow.h"
#include "core/spec.h"
#include "core/task.h"

namespace jigsaw {

class Engine;
struct GraphMetrics;

// What comes with a request beside its tensors.
struct RequestOptions {
  Time arrival = 0;            // When it came; 0 for now.
  Time deadline = 0;           // Set by an earlier step of a pipeline; 0 for none.
  uint64_t timeout_us = 0;     // The client's own; 0 for none.
  int priority = 0;            // Larger goes first.
  std::vector<size_t> wanted;  // Indices of the front's outputs that the client wants.
};

// Requests of one front. Each method may be called by any thread.
class Front {
 public:
  // Throws FormatError where the specification cannot be used.
  Front(Engine& engine, std::string model, std::string_view spec);

  // Waits until nothing of it is under way.
  ~Front();

  const FrontSpec& spec() const { return spec_; }
  const std::string& model() const { return model_; }
  Engine& engine() { return engine_; }
  const std::vector<std::unique_ptr<Task>>& tasks() const { return tasks_; }
  GraphMetrics& metrics() { return *metrics_; }

  // Takes a request and its inputs, in the order of the specification's.
  void submit(Request* request, std::vector<Value> inputs, RequestOptions options);

  // A flow was released. Called with the lock held.
  void released();

  // Whether a task that follows has so much waiting that a batch of this one would only wait there.
  bool followers_full(size_t task, Time at) const;

  // Dispatches the tasks before one, where they were held up by it.
  void unblock_predecessors(size_t task, Work& work, Time at);

  // Time that a request still needs once a task is done: the longest path of what follows, as it goes now.
  Time remaining_time(size_t task) const;

  // The same by how long requests lately took at the tasks that follow, their waiting included, at the high end.
  Time remaining_time_high(size_t task) const;

 private:
  friend class Flow;

  // The longest path of what follows, by how long a request stays at each task; by the profile, so many times, while a
  // task is not there.
  using TimeAtTask = double (*)(Task&, Time);
  Time remaining_time(size_t task, double profile_factor, TimeAtTask time_at_task) const;
  Time remaining_time_of_fronts(size_t task, double profile_factor, TimeAtTask time_at_task, Time at,
                                std::map<const Task*, Time>& visited) const;

  // The task that follows one of a front of its own, and only such; nullptr while it is not there.
  Task* find_follower(const std::string& name) const;

  const FlowPlan& plan(const std::vector<size_t>& wanted);
  void split(Request* request, std::vector<Value> inputs, const RequestOptions& options);
  void begin(Request* request, std::vector<Value> inputs, const RequestOptions& options);

  Engine& engine_;
  std::string model_;
  FrontSpec spec_;
  GraphMetrics* metrics_;
  std::vector<std::unique_ptr<Task>> tasks_;
  std::vector<std::vector<size_t>> followers_;  // For each task, those that take a tensor of it.
  std::map<std::vector<size_t>, FlowPlan> plans_;
  size_t flows_ = 0;  // Under way.
  std::condition_variable idle_;
};

}  // namespace jigsaw
