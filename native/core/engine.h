// The engine: the part of the data plane that all fronts of a process share. It has the workers, the lock and the
// threads.
//
// The thread that submits a request queues it and sends its calls; the event loop's thread receives the answers. One
// lock guards all state that both change. Operations that take longer than microseconds are collected as `Work` and
// executed after the lock is released: sending, responding, joining large outputs, writing traces.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "core/call_driver.h"
#include "core/calls.h"
#include "core/connection_pool.h"
#include "core/epoch.h"
#include "core/event_loop.h"
#include "core/failover.h"
#include "core/host.h"
#include "core/lock.h"
#include "core/metrics.h"
#include "core/pending_calls.h"
#include "core/region_thread.h"
#include "core/registrations.h"
#include "core/registry.h"
#include "core/trace.h"
#include "core/work.h"

namespace jigsaw {

// Settings of an engine.
struct Settings {
  // Folder with workers/, routes/, tasks/, slots/, generations/, condemned/, traces/ and the files `epoch` and
  // `traced_share`.
  std::string run_dir;
  std::string secret;         // Secret that workers require for the registration of shared memory.
  std::string region_prefix;  // Prefix of the names of shared memory; empty to use none.
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
  void log(LogLevel level, const std::string& text) { host_.log(level, text); }

  // --- The functions below require the lock. ---

  GraphMetrics& graph_metrics(const std::string& graph);
  HighestEpoch& highest_epoch() { return highest_epoch_; }
  Registry& registry() { return registry_; }
  Calls& calls() { return calls_; }

  // Makes the event loop wake up at this time or earlier.
  void wake_at(Time when) { loop_.wake_at(when); }

  // Forgets the servers and generations that nothing uses, and closes idle connections to servers that no route names
  // any longer.
  void drop_unused();

  // --- The functions below must be called without the lock. ---

  // Executes the collected operations, and those that result from them.
  void run(Work& work);

 private:
  // Body of the event loop's thread.
  void loop();

  void on_event(uint64_t number);

  // Handles all timers that have expired: deadlines of calls, wake-up times of tasks, and the gauges. Requires the
  // lock.
  void tick(Time at, Work& work);

  Host& host_;
  const Settings settings_;
  std::mutex mutex_;
  MetricRegistry metrics_;
  Tracer tracer_;
  HighestEpoch highest_epoch_;
  std::map<std::string, std::unique_ptr<GraphMetrics>> graphs_;
  EventLoop loop_;
  KeptLocks kept_locks_;
  Registry registry_;
  PendingCalls pending_;
  RegionThread regions_;
  ConnectionPool pool_;
  Registrations registrations_;
  Calls calls_;
  Failover failover_;
  CallDriver driver_;
  Time gauges_due_ = 0;
};

}  // namespace jigsaw
