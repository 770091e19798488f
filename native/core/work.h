// Operations that take longer than microseconds, and that are therefore executed without the engine's lock.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "core/base.h"
#include "core/host.h"
#include "core/trace.h"

namespace jigsaw {

class Connection;
class Flow;
class Task;
struct Job;

// Operations that were collected under the lock, and that `Engine::run` executes after it is released. Local to a
// thread.
struct Work {
  std::vector<Connection*> sends;  // Connections whose calls are to be sent.
  std::vector<Flow*> answers;      // Flows to respond to; each is referenced.
  std::vector<Flow*> releases;     // Flows without references, to be deleted.
  std::vector<Task*> dirty;        // Tasks to dispatch before the lock is released, by `dispatch`.
  std::vector<Job*> joins;         // Jobs whose answers are to be joined; the flow of each is referenced.
  std::vector<Hop> hops;           // Lines of traces to write.
  std::vector<std::pair<LogLevel, std::string>> logs;

  bool empty() const {
    return sends.empty() && answers.empty() && releases.empty() && joins.empty() && hops.empty() && logs.empty();
  }

  // Dispatches the tasks in `dirty`. Requires the lock.
  void dispatch(Time at);
};

}  // namespace jigsaw
