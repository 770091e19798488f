// Connections to servers, which are used again for the next call.
#pragma once

#include <string>
#include <utility>

#include "core/connection.h"
#include "core/region_thread.h"
#include "core/worker.h"

namespace jigsaw {

// Lends the connections of servers, which own them. Owned by the engine; all functions require its lock.
class ConnectionPool {
 public:
  // `secret` is what workers require for the registration of shared memory.
  ConnectionPool(RegionThread& regions, std::string secret) : regions_(regions), secret_(std::move(secret)) {}

  // Returns an idle connection to a server, or a new one.
  Connection& take(Server& server);

  // Returns a connection whose call or registration has ended. It stays open unless no route names the server any
  // longer.
  void give_back(Connection& connection);

  // Closes a connection and frees its region.
  void disconnect(Connection& connection);

  // Closes the idle connections to a server that no route names any longer, because a server with open connections
  // stops slowly.
  void retire_idle(Server& server);

 private:
  RegionThread& regions_;
  const std::string secret_;
};

}  // namespace jigsaw
