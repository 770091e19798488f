// Execution of one request: which tasks run, in which order, and with which tensors.
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "core/generation.h"
#include "core/host.h"
#include "core/job.h"
#include "core/spec.h"

namespace jigsaw {

class Engine;
class Front;
struct Work;

// Tasks that must run to compute a set of outputs. Computed once for each set that clients request; immutable.
struct FlowPlan {
  std::vector<bool> needed;                    // True for each task that must run.
  std::vector<int> waiting;                    // Number of tensors from other tasks that each task waits for.
  std::vector<std::vector<size_t>> consumers;  // Needed tasks that wait for each tensor.
  std::vector<int> sink;        // Output of the front into whose response each tensor is written directly, or -1.
  std::vector<size_t> outputs;  // Requested outputs of the front.
  int tasks = 0;                // Number of needed tasks.
};

// Determines the tasks that must run for these outputs of a front.
FlowPlan plan_flow(const FrontSpec& spec, const std::vector<size_t>& wanted);

// A request in flight. Reference-counted: pieces and pending work hold it, and `Engine::run` deletes it after the last
// `drop`. All functions except `memory`, `join` and `respond` require the engine's lock.
class Flow {
 public:
  // `deadline` is the time after which an answer is useless, or kNever. `order` is the sort key of queues: the
  // deadline, or the end of the SLO if there is none. `deadline_text` names the deadline in messages. `binding` counts
  // the flow from the start.
  Flow(Front& front, const FlowPlan& plan, Request* request, std::vector<Value> inputs, Time arrival, Time deadline,
       Time order, std::string deadline_text, std::shared_ptr<Binding> binding);

  Front& front() { return front_; }
  Request* request() { return request_; }
  bool ended() const { return ended_; }
  Time arrival() const { return arrival_; }
  Time deadline() const { return deadline_; }
  const std::string& deadline_text() const { return deadline_text_; }
  Binding& binding() { return *binding_; }

  // Returns those of the generations that may answer the request which have a usable worker for each task that the
  // request still needs.
  GenerationSet served(Time at) const;

  // Returns the generations that are to answer the request: `served`, or all that may answer it if there are none.
  GenerationSet preferred(Time at) const;

  // Returns a task that the request still needs, but none of whose workers can be reached; nullptr if there is none.
  const Task* unreachable_task(Time at) const;

  int priority = 0;
  bool traced = false;

  // Starts the tasks whose inputs are available.
  void start(Work& work);

  // Handles the answer to a job's last item. Large answers are left to `join`, through `Work::joins`.
  void job_answered(Job& job, Work& work);

  // Joins the answers of a job's calls to tensors. Called without the lock; `joined` continues with the lock.
  void join(Job& job);
  void joined(Job& job, Work& work);

  // Ends the request with a failure. Its pieces that are still queued or in flight are dropped later.
  void fail(Failure failure, Work& work);

  // Ends the request with outputs that a Python step returned as the answer to the whole request.
  void answer_early(const Job& job, std::vector<std::pair<size_t, Value>> outputs, Work& work);

  // Takes and releases a reference.
  void hold() { holders_++; }
  void drop(Work& work);

  // Returns true if the tensor is written directly into the response.
  bool client_gets(size_t tensor) const { return plan_.sink[tensor] >= 0; }

  // Returns memory for a tensor: part of the response if `client_gets` is true, else new memory, which `owner` keeps.
  char* memory(size_t tensor, DataType type, const Shape& shape, size_t size, std::shared_ptr<char[]>& owner);

  // Sends the response. Called exactly once, without the lock.
  void respond();

  // Records the outcome of a job, if the request is traced.
  void trace(const Job& job, const char* outcome, const std::string& message, Time at, Work& work);

 private:
  // Returns true if the request needs an answer of a task that it does not have yet.
  bool still_needs(size_t task) const;

  // Starts the tasks in `ready`, and those that become ready because a started task has no items.
  void advance(std::vector<size_t> ready, Work& work);

  // Adds the times of an answered job to the metrics and statistics.
  void record_timing(const Job& job);

  // Handles a job whose answers are joined, and adds the tasks that waited for it to `ready`. Returns false if the
  // request has ended.
  bool complete_job(Job& job, std::vector<size_t>& ready, Work& work);

  // Ends the request: leaves the response to `Engine::run`.
  void end(Work& work);

  // Copies the outputs that were not written directly into the response.
  void copy_outputs();

  Front& front_;
  const FlowPlan& plan_;
  Request* request_;
  Time arrival_, deadline_, order_;
  std::string deadline_text_;
  const std::shared_ptr<Binding> binding_;
  std::vector<Value> values_;
  std::vector<std::unique_ptr<Job>> jobs_;
  std::vector<int> waiting_;
  std::vector<std::pair<size_t, Value>> early_;
  std::unique_ptr<Failure> failure_;
  std::shared_ptr<Generation> generation_;  // Only generation that could answer the request when it ended, or nullptr.
  Timing timing_;
  int tasks_left_;   // Number of needed tasks without an answer.
  int holders_ = 1;  // Reference count.
  bool ended_ = false;
  bool early_answer_ = false;
};

}  // namespace jigsaw
