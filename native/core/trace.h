// Traces: what became of single requests at each task, a line of JSON each, for requests that bring an id.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>

#include "core/base.h"
#include "core/job.h"

namespace jigsaw {

// Chooses the requests to trace: all while there are few, else those whose ids have the smallest hashes, so that every
// task of a request chooses the same.
class Sampler {
 public:
  bool choose(std::string_view id, Time at);

 private:
  Time second_start_ = 0;
  bool started_ = false;
  uint64_t seen_ = 0, remaining_ = 0;
  uint64_t hash_limit_ = uint64_t{1} << 32;
};

// A line of a trace and the route whose file it goes to.
struct Hop {
  std::string route, line;
};

// Writes the hops of a gateway's requests. A file that is full begins anew, and the one before it is kept.
class Tracer {
 public:
  explicit Tracer(std::string folder) : folder_(std::move(folder)) {}

  bool choose(std::string_view id, Time at) { return sampler_.choose(id, at); }

  // What became of a job. `outcome` is "answered", "late", "code", or whose fault a failure was.
  static Hop hop(const Job& job, std::string_view request, std::string_view graph, const char* outcome,
                 const std::string& message, Time at);

  // Appends a hop to the file of its route. It waits for the disk: the engine's lock is not held.
  void write(const Hop& hop);

 private:
  std::string folder_;
  Sampler sampler_;
  std::mutex mutex_;
};

}  // namespace jigsaw
