// Beginning and end of the calls of batches to workers.
#pragma once

#include <vector>

#include "core/base.h"
#include "core/connection_pool.h"
#include "core/pending_calls.h"
#include "core/registrations.h"
#include "core/task.h"
#include "core/work.h"

namespace jigsaw {

// Assigns connections to calls. Owned by the engine; all functions require its lock.
class Calls {
 public:
  Calls(PendingCalls& pending, ConnectionPool& pool, Registrations& registrations)
      : pending_(pending), pool_(pool), registrations_(registrations) {}

  // Prepares the call of a batch and adds it to `work.sends`. The caller has acquired the worker.
  void begin(Work& work, Task& task, const Entry& entry, std::vector<Piece> pieces, Time at);

  // Notes that the answer to a call has arrived, or that none is expected any longer.
  static void end_expectation(Call& call, Work& work);

  // Releases the worker of a call that has ended, and returns the connection to the pool or registers a region for it.
  void finish(Connection& connection, Work& work);

  // Records how a call ended for the traces of its requests.
  static void trace(const Call& call, const char* outcome, Time ended);

 private:
  PendingCalls& pending_;
  ConnectionPool& pool_;
  Registrations& registrations_;
};

}  // namespace jigsaw
