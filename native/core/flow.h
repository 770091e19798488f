// A request's way through the tasks of its graph.
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "core/host.h"
#include "core/job.h"
#include "core/spec.h"

namespace jigsaw {

class Engine;
class Front;
struct Work;

// What must run for some of a front's outputs.
struct FlowPlan {
  std::vector<bool> needed;                    // For each task.
  std::vector<int> waiting;                    // Tensors made by other tasks that each task waits for.
  std::vector<std::vector<size_t>> consumers;  // For each tensor, the needed tasks that wait for it.
  std::vector<int> sink;                       // For each tensor, the front's output that it is, or -1.
  std::vector<size_t> outputs;                 // Front outputs wanted.
  int tasks = 0;                               // How many are needed.
};

FlowPlan plan_flow(const FrontSpec& spec, const std::vector<size_t>& wanted);

// One request under way. All but `memory`, `join` and `respond` is called with the engine's lock held.
class Flow {
 public:
  // `deadline` is when an answer is of no use any more, kNever where it always is; `order` is what queues go by;
  // `promise` names the deadline in messages.
  Flow(Front& front, const FlowPlan& plan, Request* request, std::vector<Value> inputs, Time arrival, Time deadline,
       Time order, std::string deadline_text);

  Front& front() { return front_; }
  Request* request() { return request_; }
  bool ended() const { return ended_; }
  Time arrival() const { return arrival_; }
  Time deadline() const { return deadline_; }
  const std::string& deadline_text() const { return deadline_text_; }
  int priority = 0;
  bool traced = false;

  // Starts the tasks whose inputs are there.
  void start(Work& work);

  // A job's last item was answered. Where much is to be joined of its answers, that is left to `join`.
  void job_answered(Job& job, Work& work);

  // Joins the answers of a job's calls to tensors, without the lock; `joined` goes on from there.
  void join(Job& job);
  void joined(Job& job, Work& work);

  // Ends the request with a failure. What is still under way of it is dropped.
  void fail(Failure failure, Work& work);

  // Ends the request with outputs that a python step, whose job is `job`, gave in place of its own.
  void answer_early(const Job& job, std::vector<std::pair<size_t, Value>> outputs, Work& work);

  // A piece, or whoever else keeps the request alive.
  void hold() { holders_++; }
  void drop(Work& work);

  // Whether the client gets a tensor, straight into its response.
  bool client_gets(size_t tensor) const { return plan_.sink[tensor] >= 0; }

  // Memory for a tensor: that of the response where the client gets it, else memory of its own.
  char* memory(size_t tensor, DataType type, const Shape& shape, size_t size, std::shared_ptr<char[]>& owner);

  // Sends the response. Called once, without the lock.
  void respond();

  // Notes what became of a job, where the request is traced.
  void trace(const Job& job, const char* outcome, const std::string& message, Time at, Work& work);

 private:
  void advance(std::vector<size_t> ready, Work& work);
  void record_timing(const Job& job);
  bool complete_job(Job& job, std::vector<size_t>& ready, Work& work);
  void end(Work& work);
  void copy_outputs();

  Front& front_;
  const FlowPlan& plan_;
  Request* request_;
  Time arrival_, deadline_, order_;
  std::string deadline_text_;
  std::vector<Value> values_;
  std::vector<std::unique_ptr<Job>> jobs_;
  std::vector<int> waiting_;
  std::vector<std::pair<size_t, Value>> early_;
  std::unique_ptr<Failure> failure_;
  Timing timing_;
  int tasks_left_;
  int holders_ = 1;
  bool ended_ = false;
  bool early_answer_ = false;
};

}  // namespace jigsaw
