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

  // Prepares the call of a batch and adds it to `work.sends`. The caller has acquired the worker, which is expected to
  // have a slot for the call from `slot_at` on.
  void begin(Work& work, Task& task, const Entry& entry, std::vector<Piece> pieces, Time at, Time slot_at);

  // Notes that the answer to a call has arrived, or that none is expected any longer.
  static void end_expectation(Call& call, Work& work);

  // Releases the worker of a call that has ended, and returns the connection to the pool or registers a region for it.
  // `answered` is false if the worker failed.
  void finish(Connection& connection, bool answered, Work& work);

  // Gives the slot of a call that has ended to the early call of its worker, if there is one. `answered` is false if
  // the worker failed.
  void pass_slot(const Call& ended, bool answered, Time at);

  // Records how a call ended for the traces of its requests.
  static void trace(const Call& call, const char* outcome, Time ended);

 private:
  PendingCalls& pending_;
  ConnectionPool& pool_;
  Registrations& registrations_;
};

}  // namespace jigsaw
