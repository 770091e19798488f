// Registration of shared memory: a connection whose call would have needed a larger region gets one and makes it known
// to its server before the next call.
#pragma once

#include <mutex>
#include <string>
#include <utility>

#include "core/connection.h"
#include "core/connection_pool.h"
#include "core/event_loop.h"
#include "core/host.h"
#include "core/pending_calls.h"
#include "core/region_thread.h"
#include "core/worker.h"

namespace jigsaw {

// Owned by the engine. All functions require its lock, except for `on_event`.
class Registrations {
 public:
  // `enabled` is false if no shared memory is used. `secret` is what workers require for the registration.
  Registrations(Host& host, std::mutex& mutex, EventLoop& loop, PendingCalls& pending, ConnectionPool& pool,
                RegionThread& regions, bool enabled, std::string secret)
      : host_(host),
        mutex_(mutex),
        loop_(loop),
        pending_(pending),
        pool_(pool),
        regions_(regions),
        enabled_(enabled),
        secret_(std::move(secret)) {}

  // Returns true if calls to a server may use shared memory.
  bool allowed(const Server& server, Time at) const {
    return enabled_ && !server.remote && at >= server.no_regions_until;
  }

  // Begins to register a region for a connection whose call has ended, if the call would have needed one. Returns false
  // if the connection needs none or must not have it.
  bool begin(Connection& connection, Time at);

  // Returns true if a registration still needs its region. Ends the registration if no route names the server any
  // longer.
  bool still_needed(uint64_t number);

  // Registers the region that was created for a registration; it is empty if it could not be created.
  void region_made(uint64_t number, Region region);

  // Handles an event of a connection that registers a region. Must be called without the lock.
  void on_event(Connection& connection);

  // Ends a registration that the server did not answer in time.
  void expire(Connection& connection);

  // Ends a registration whose server is out of service.
  void abort(Connection& connection);

 private:
  // Returns the connection to the pool.
  void end(Connection& connection);

  // Stops the use of shared memory for a server for some time.
  void refuse(Server& server, const std::string& reason);

  Host& host_;
  std::mutex& mutex_;
  EventLoop& loop_;
  PendingCalls& pending_;
  ConnectionPool& pool_;
  RegionThread& regions_;
  const bool enabled_;
  const std::string secret_;
};

}  // namespace jigsaw
