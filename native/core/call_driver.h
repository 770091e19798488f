// Sends calls, and handles their answers.
#pragma once

#include "core/calls.h"
#include "core/connection_pool.h"
#include "core/event_loop.h"
#include "core/failover.h"
#include "core/pending_calls.h"
#include "core/work.h"

namespace jigsaw {

class Engine;

// Owned by the engine. All functions must be called without its lock, except for those that say otherwise.
class CallDriver {
 public:
  CallDriver(Engine& engine, EventLoop& loop, PendingCalls& pending, ConnectionPool& pool, Calls& calls,
             Failover& failover)
      : engine_(engine), loop_(loop), pending_(pending), pool_(pool), calls_(calls), failover_(failover) {}

  // Sends the call of a connection. Any thread may do so.
  void send(Connection& connection, Work& work);

  // Handles an event of a connection that waits for an answer, and executes what results from it. Called by the event
  // loop's thread.
  void on_event(Connection& connection);

 private:
  void on_answer(Connection& connection, Work& work);
  void on_error(Connection& connection, Work& work);

  // Passes the values of an answer on to the requests. Requires the lock.
  void deliver(Connection& connection, Time at, Work& work);
  void answer_early(Connection& connection, Time at, Work& work);

  Engine& engine_;
  EventLoop& loop_;
  PendingCalls& pending_;
  ConnectionPool& pool_;
  Calls& calls_;
  Failover& failover_;
};

}  // namespace jigsaw
