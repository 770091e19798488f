// The engine: the part of the data plane that all fronts of a process share. It has the workers, the lock and the
// threads.
//
// The thread that submits a request queues it and sends its calls; the event loop's thread receives the answers. One
// lock guards all state that both change. Operations that take longer than microseconds are collected as `Work` and
// executed after the lock is released: sending, responding, joining large outputs, writing traces. A second thread
// creates and frees shared memory, because that takes the kernel a large part of a second for hundreds of megabytes.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <queue>
#include <set>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "core/connection.h"
#include "core/epoch.h"
#include "core/flow.h"
#include "core/generation.h"
#include "core/host.h"
#include "core/lock.h"
#include "core/metrics.h"
#include "core/running_time.h"
#include "core/task.h"
#include "core/trace.h"
#include "core/worker.h"

namespace jigsaw {

// Settings of an engine.
struct Settings {
  // Folder with workers/, routes/, tasks/, slots/, generations/, condemned/, traces/ and the files `epoch` and
  // `traced_share`.
  std::string run_dir;
  std::string secret;         // Secret that workers require for the registration of shared memory.
  std::string region_prefix;  // Prefix of the names of shared memory; empty to use none.
};

// Operations that were collected under the lock, and that `Engine::run` executes after it is released. Local to a
// thread.
struct Work {
  std::vector<Connection*> sends;  // Connections whose calls are to be sent.
  std::vector<Flow*> answers;      // Flows to respond to; each is referenced.
  std::vector<Flow*> releases;     // Flows without references, to be deleted.
  std::vector<Task*> dirty;        // Tasks to dispatch before the lock is released, by `Engine::dispatch_dirty`.
  std::vector<Job*> joins;         // Jobs whose answers are to be joined; the flow of each is referenced.
  std::vector<Hop> hops;           // Lines of traces to write.
  std::vector<std::pair<LogLevel, std::string>> logs;

  bool empty() const {
    return sends.empty() && answers.empty() && releases.empty() && joins.empty() && hops.empty() && logs.empty();
  }
};

// Owns the connections, metrics, traces and threads. The host owns the engine, which must outlive its fronts.
class Engine {
 public:
  Engine(Host& host, Settings settings);
  ~Engine();

  std::mutex& mutex() { return mutex_; }
  const Settings& settings() const { return settings_; }
  MetricRegistry& metrics() { return metrics_; }
  Tracer& tracer() { return tracer_; }
  GraphMetrics& graph_metrics(const std::string& graph);

  // --- The functions below require the lock. ---

  // Returns the worker that an entry of a route names; creates it if it is new.
  std::shared_ptr<Worker> worker(const RouteEntry& entry);

  // Returns a generation of a graph that a route names.
  std::shared_ptr<Generation> generation(const std::string& graph, int64_t number);

  HighestEpoch& highest_epoch() { return highest_epoch_; }

  // Registers and unregisters a task.
  void add(Task* task);
  void remove(Task* task);

  // Returns the tasks of a graph in the order of their registration.
  const std::vector<Task*>& tasks_of(const std::string& graph);

  // Returns the task of a graph in the latest front that has it, or nullptr.
  Task* find(const std::string& graph, const std::string& task);

  // Prepares the call of a batch and adds it to `work.sends`. The caller has acquired the worker.
  void call(Work& work, Task& task, const Entry& entry, std::vector<Piece> pieces, Time at);

  // Dispatches the tasks in `work.dirty`.
  void dispatch_dirty(Work& work, Time at);

  // Makes the event loop wake up at this time or earlier.
  void wake_at(Time when);

  // Closes idle connections to servers that no route names any longer, and forgets the servers and generations that
  // nothing uses.
  void drop_unused();

  void log(LogLevel level, const std::string& text);

  // --- The functions below must be called without the lock. ---

  // Executes the collected operations, and those that result from them.
  void run(Work& work);

 private:
  // Body of the event loop's thread.
  void loop();

  // Body of the region thread, which creates and frees shared memory.
  void region_loop();

  void on_event(uint64_t number);
  void on_answer(Connection& connection, Work& work);
  void on_registration(Connection& connection);

  // Sends the call of a connection.
  void start(Connection& connection, Work& work);

  // The functions below require the lock.

  // Makes the event loop wait for the next event of a connection.
  void arm(Connection& connection);

  // Handles all timers that have expired: deadlines of calls, wake-up times of tasks, and the gauges.
  void tick(Time at, Work& work);

  // Ends the calls whose deadline has passed.
  void expire(Time at, Work& work);

  // Handles a call that has failed. Its pieces are retried if the call was not executed, or may be executed again.
  void fail_call(Connection& connection, const std::string& reason, bool executed, Work& work);

  // Handles a call that the model has rejected. If it has several jobs, each of them is retried alone.
  void reject_call(Connection& connection, Blame blame, const std::string& reason, Work& work);

  // Takes a server out of service, fails its calls and reports it to the controller.
  void condemn(Server& server, const std::string& model, const std::string& reason, Work& work);
  void write_condemned(const Server& server, const std::string& model, const std::string& reason, Work& work);

  // Releases the worker of a call that has ended, and returns the connection to the pool or registers a region for it.
  void finish_call(Connection& connection, Work& work);
  void return_to_pool(Connection& connection);

  // Closes a connection and frees its region.
  void disconnect(Connection& connection);

  // Leaves a region to the region thread, which frees it.
  void discard(Region region);
  void end_registration(Connection& connection);

  // Returns true if a region must still be created. Ends the registration if no route names the server any longer.
  bool still_needed(uint64_t number);

  // Stops the use of shared memory for a server for some time.
  void refuse_regions(Server& server, const std::string& reason);
  void answer_early(Connection& connection, Time at, Work& work);
  void count_rows(const Call& call, const VariantMetrics& variant);
  void trace_call(const Call& call, const char* outcome, Time ended);

  // Returns the time at which a call counts as hanging.
  Time call_deadline(const Task& task, const Entry& entry, int64_t items, Time at) const;

  Host& host_;
  Settings settings_;
  std::mutex mutex_;
  MetricRegistry metrics_;
  Tracer tracer_;
  HighestEpoch highest_epoch_;
  KeptLocks kept_locks_{[this](Time when) { wake_at(when); }};
  std::map<std::string, std::unique_ptr<GraphMetrics>> graphs_;
  std::map<std::string, std::weak_ptr<Server>> servers_;
  std::map<std::pair<std::string, std::string>, std::weak_ptr<Worker>> workers_;
  std::map<std::pair<std::string, int64_t>, std::weak_ptr<Generation>> generations_;
  std::map<std::string, size_t> generations_named_;  // Number of generations of each graph so far.
  std::unordered_map<uint64_t, Connection*> calls_;  // Connections by the number of their call or registration.
  RunningTime running_time_;
  using Deadline = std::pair<Time, uint64_t>;  // Running time, and number of the call or registration.
  std::priority_queue<Deadline, std::vector<Deadline>, std::greater<>> deadlines_;
  std::set<Task*> tasks_;
  std::map<std::string, std::vector<Task*>> tasks_of_;  // Tasks by graph.
  uint64_t next_number_;
  int epoll_ = -1;
  int event_ = -1;                  // Event file descriptor that wakes the loop.
  std::atomic<Time> wake_{kNever};  // Next time at which a task must be dispatched or a lock released.
  std::atomic<bool> stopping_{false};
  Time gauges_due_ = 0;
  struct RegionRequest {
    uint64_t number;  // Number of the registration.
    size_t bytes;
  };
  std::deque<RegionRequest> region_requests_;
  std::vector<Region> discarded_;  // Regions that the region thread must free.
  std::condition_variable region_work_;
  std::thread loop_thread_, region_thread_;
};

}  // namespace jigsaw
