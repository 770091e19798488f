// The part of the data plane that all fronts of a process share: its workers, its lock, and the thread that receives.
//
// A request is taken in, queued and sent by the thread that brings it; answers are received by the loop's thread. One
// lock guards all that both change. What takes longer than microseconds is collected as `Work` and done once the lock
// is free: to send, to answer, to join large outputs whose sizes vary, to write a trace. Shared memory is made by a
// thread of its own, since hundreds of megabytes take the kernel a good part of a second.
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
#include "core/flow.h"
#include "core/host.h"
#include "core/metrics.h"
#include "core/task.h"
#include "core/trace.h"
#include "core/worker.h"

namespace jigsaw {

struct Settings {
  std::string run_dir;        // Holds workers/, routes/, slots/, condemned/ and traces/.
  std::string secret;         // By which workers let shared memory be registered.
  std::string region_prefix;  // How names of shared memory begin; empty for none.
};

// What a thread has to do once it holds the lock no more.
struct Work {
  std::vector<Connection*> sends;
  std::vector<Flow*> answers;   // To respond; each is held.
  std::vector<Flow*> releases;  // Nothing of them is under way any more.
  std::vector<Task*> dirty;     // To be dispatched before the lock is free.
  std::vector<Job*> joins;      // Their answers are to be joined; the request of each is held.
  std::vector<Hop> hops;
  std::vector<std::pair<LogLevel, std::string>> logs;

  bool empty() const {
    return sends.empty() && answers.empty() && releases.empty() && joins.empty() && hops.empty() && logs.empty();
  }
};

class Engine {
 public:
  Engine(Host& host, Settings settings);
  ~Engine();

  std::mutex& mutex() { return mutex_; }
  const Settings& settings() const { return settings_; }
  MetricRegistry& metrics() { return metrics_; }
  Tracer& tracer() { return tracer_; }
  GraphMetrics& graph_metrics(const std::string& graph);

  // --- with the lock held ---

  std::shared_ptr<Worker> worker(const RouteEntry& entry);

  void add(Task* task);
  void remove(Task* task);

  // The tasks of a graph, those of the latest front last.
  const std::vector<Task*>& tasks_of(const std::string& graph);

  // The task of a graph in the latest front that has it; nullptr where none has.
  Task* find(const std::string& graph, const std::string& task);

  // Puts a batch on its way; the worker's call is acquired already.
  void call(Work& work, Task& task, const Entry& entry, std::vector<Piece> pieces, Time at);

  // Dispatches the tasks that have changed.
  void dispatch_dirty(Work& work, Time at);

  // Has the loop wake at a time, or sooner.
  void wake_at(Time when);

  // Closes idle connections to a server that no route names any more.
  void drop_unused_servers();

  void log(LogLevel level, const std::string& text);

  // --- without it ---

  // Does what was collected, and what comes of it.
  void run(Work& work);

 private:
  void loop();
  void on_event(uint64_t number);
  void on_answer(Connection& connection, Work& work);
  void on_registration(Connection& connection);
  void start(Connection& connection, Work& work);
  void region_loop();

  // Each of these with the lock held.
  void arm(Connection& connection);
  void tick(Time at, Work& work);
  void expire(Time at, Work& work);
  void fail_call(Connection& connection, const std::string& reason, bool executed, Work& work);
  void reject_call(Connection& connection, Blame blame, const std::string& reason, Work& work);
  void condemn(Server& server, const std::string& model, const std::string& reason, Work& work);
  void write_condemned(const Server& server, const std::string& model, const std::string& reason, Work& work);
  void finish_call(Connection& connection, Work& work);
  void return_to_pool(Connection& connection);
  void disconnect(Connection& connection);
  void discard(Region region);
  void end_registration(Connection& connection);

  // Returns true if a region is still to be made. Ends the registration if no route names the server any more.
  bool still_needed(uint64_t number);
  void refuse_regions(Server& server, const std::string& reason);
  void answer_early(Connection& connection, Time at, Work& work);
  void count_rows(const Call& call, const VariantMetrics& variant);
  void trace_call(const Call& call, const char* outcome, Time ended);
  Time call_deadline(const Task& task, const Entry& entry, int64_t items, Time at) const;

  Host& host_;
  Settings settings_;
  std::mutex mutex_;
  MetricRegistry metrics_;
  Tracer tracer_;
  std::map<std::string, std::unique_ptr<GraphMetrics>> graphs_;
  std::map<std::string, std::weak_ptr<Server>> servers_;
  std::map<std::pair<std::string, std::string>, std::weak_ptr<Worker>> workers_;
  std::unordered_map<uint64_t, Connection*> calls_;  // By number; registrations, too.
  using Deadline = std::pair<Time, uint64_t>;
  std::priority_queue<Deadline, std::vector<Deadline>, std::greater<>> deadlines_;
  std::set<Task*> tasks_;
  std::map<std::string, std::vector<Task*>> tasks_of_;  // By graph.
  uint64_t next_number_;
  int epoll_ = -1;
  int event_ = -1;
  std::atomic<Time> wake_{kNever};
  std::atomic<bool> stopping_{false};
  Time gauges_due_ = 0;
  struct RegionRequest {
    uint64_t number;  // Number of the registration.
    size_t bytes;
  };
  std::deque<RegionRequest> region_requests_;
  std::vector<Region> discarded_;  // To be freed.
  std::condition_variable region_work_;
  std::thread loop_thread_, region_thread_;
};

}  // namespace jigsaw
