#include "core/connection_pool.h"

#include <memory>

namespace jigsaw {

Connection& ConnectionPool::take(Server& server) {
  if (server.idle.empty()) {
    server.connections.push_back(std::make_unique<Connection>(server));
    return *server.connections.back();
  }
  Connection& connection = *server.idle.back();
  server.idle.pop_back();
  return connection;
}

void ConnectionPool::give_back(Connection& connection) {
  Server& server = connection.server();
  connection.state = Connection::State::kIdle;
  if (server.route_entries == 0) regions_.discard(connection.retire(secret_));
  server.idle.push_back(&connection);
  // Keep the worker until the end of this function: it may be the last owner of the server and of this connection.
  std::shared_ptr<Worker> worker = std::move(connection.call.worker);
  connection.call = {};
}

void ConnectionPool::disconnect(Connection& connection) {
  regions_.discard(connection.take_region());
  connection.close();
}

void ConnectionPool::retire_idle(Server& server) {
  for (Connection* connection : server.idle) regions_.discard(connection->retire(secret_));
}

}  // namespace jigsaw
