// Traces of the batches that a model runs on a worker: one line of JSON for each batch with traced requests. The format
// is that of runtime.trace.Run.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/base.h"

namespace jigsaw {

// The parts of a call's request id, `<ids>#<token>`: the ids that clients gave to its traced requests, and its token.
struct CallId {
  std::vector<std::string> ids;
  uint64_t token = 0;

  // An id that does not have the gateway's form gives no ids and the token 0.
  static CallId parse(std::string_view text);
};

// Trace file of one model instance, which runs one batch at a time.
class RunTrace {
 public:
  // An empty path writes nothing.
  RunTrace(std::string path, std::string worker, std::string model)
      : path_(std::move(path)), worker_(std::move(worker)), model_(std::move(model)) {}

  // Writes a line about a batch that has just ended, if any of its calls has traced requests.
  void write(const std::vector<CallId>& calls, Time began, int64_t items) const;

 private:
  std::string path_, worker_, model_;
};

}  // namespace jigsaw
