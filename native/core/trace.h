// Traces: one line of JSON for each task of a traced request. Some requests with an id are traced, and all that are
// sampled for OpenTelemetry, whose responses have a line too.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "core/base.h"
#include "core/host.h"
#include "core/job.h"
#include "core/metrics.h"
#include "core/trace_context.h"

namespace jigsaw {

class Front;

// Chooses the requests to trace: all of them while there are few, else those whose ids have the smallest hashes.
// Because the hash decides, all tasks choose the same requests. Guarded by the engine's lock.
class Sampler {
 public:
  // Returns true if the request is to be traced.
  bool choose(std::string_view id, Time at);

 private:
  Time second_start_ = 0;
  bool started_ = false;
  uint64_t seen_ = 0, remaining_ = 0;
  uint64_t hash_limit_ = uint64_t{1} << 32;
};

// A line of a trace, and the route that names its file.
struct Hop {
  std::string route, line;
};

// Returns the id of a traced request in the traces: the client's, or that of the trace if the client gave none.
std::string traced_name(const Request& request);

// Chooses requests to trace and writes their lines. Owned by the engine; all functions are thread-safe, except `choose`
// and `refresh_share`, which require the engine's lock.
class Tracer {
 public:
  // Requires the engine's lock, or that nobody else uses the registry yet.
  Tracer(const std::string& run_dir, MetricRegistry& metrics);

  bool choose(std::string_view id, Time at) { return sampler_.choose(id, at); }

  // Returns the context of a request that is to be sampled; nothing for others, and while nothing is sampled at all.
  // `pipeline` is true for a front of one task, which is to choose the same requests as the other ones.
  std::optional<TraceContext> sample(const TraceHeaders& client, Time arrival, bool pipeline);

  // Reads the share of requests to sample, which the controller writes; there is none if it exports no traces.
  void refresh_share();

  // Builds the line of a job. `outcome` is "answered", "late", "code", or the blame of a failure.
  static Hop hop(const Job& job, const Request& request, const FrontSpec& front, const char* outcome,
                 const std::string& message, Time at);

  // Appends a hop to the file of its route. Must be called without the engine's lock, because it waits for the disk.
  void write(const Hop& hop);

  // Appends a line about the response to a sampled request. Must be called without the engine's lock, too.
  void write(const Request& request, const Front& front, const Failure* failure, Time arrival, int64_t items);

 private:
  // Returns false if too many requests were sampled in this second.
  bool within_limit();

  std::string folder_, share_path_;
  Sampler sampler_;
  ContextSource contexts_;
  std::atomic<double> share_{-1};  // Negative if nothing is sampled.
  std::atomic<uint64_t> requests_{0};
  Metric &recorded_, &dropped_;
  std::mutex mutex_;
  std::mutex limit_mutex_;  // Not `mutex_`, whose holder may wait for the disk.
  Time limit_start_ = 0;
  uint64_t limit_used_ = 0;
};

}  // namespace jigsaw
