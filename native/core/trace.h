// Traces: one line of JSON for each task of a traced request. Only requests with an id are traced.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>

#include "core/base.h"
#include "core/job.h"

namespace jigsaw {

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

// Chooses requests to trace and writes their hops. Owned by the engine; `write` is thread-safe, `choose` requires the
// engine's lock.
class Tracer {
 public:
  explicit Tracer(std::string folder) : folder_(std::move(folder)) {}

  bool choose(std::string_view id, Time at) { return sampler_.choose(id, at); }

  // Builds the line of a job. `outcome` is "answered", "late", "code", or the blame of a failure.
  static Hop hop(const Job& job, std::string_view request, std::string_view graph, const char* outcome,
                 const std::string& message, Time at);

  // Appends a hop to the file of its route. Must be called without the engine's lock, because it waits for the disk.
  void write(const Hop& hop);

 private:
  std::string folder_;
  Sampler sampler_;
  std::mutex mutex_;
};

}  // namespace jigsaw
