#include "core/registrations.h"

namespace jigsaw {
namespace {

// Time for which a server that refused shared memory receives large tensors over its socket.
constexpr Time kSharedMemoryBackoff = 60 * kSecond;

// Maximum size of a region. Larger calls go over the socket.
constexpr size_t kMaxRegionBytes = size_t{1} << 30;

}  // namespace

bool Registrations::begin(Connection& connection, Time at) {
  Server& server = connection.server();
  size_t wanted = connection.region_wanted();
  bool registers = wanted && wanted <= kMaxRegionBytes && connection.socket() >= 0 && connection.call.regions_allowed &&
                   server.route_entries > 0 && !server.registering && at >= server.no_regions_until;
  if (!registers) return false;
  connection.call.number = pending_.add(connection);
  connection.state = Connection::State::kRegistering;
  server.registering = true;
  regions_.request(connection.call.number, wanted);
  return true;
}

bool Registrations::still_needed(uint64_t number) {
  Connection* connection = pending_.find(number);
  if (!connection) return false;
  if (connection->server().route_entries > 0) return true;
  end(*connection);
  return false;
}

void Registrations::region_made(uint64_t number, Region region) {
  Connection& connection = *pending_.find(number);
  if (!region) {
    refuse(connection.server(), "no shared memory could be created");
    end(connection);
    return;
  }
  try {
    regions_.discard(connection.register_region(std::move(region), secret_));
    Time at = now();
    pending_.set_deadline(number, pending_.running_time().at(at) + kSecond);
    loop_.wake_at(at + kSecond);
    loop_.arm(connection);
  } catch (const std::exception&) {
    // The server is gone; the next call will report it.
    abort(connection);
  }
}

void Registrations::on_event(Connection& connection) {
  std::string problem;
  try {
    if (!connection.resume_registration()) {
      std::lock_guard lock(mutex_);
      loop_.arm(connection);
      return;
    }
    if (connection.status() != 200) problem = connection.error();
  } catch (const std::exception& error) {
    problem = error.what();
  }
  std::lock_guard lock(mutex_);
  if (!problem.empty()) {
    refuse(connection.server(), "it refused shared memory: " + problem);
    pool_.disconnect(connection);
  }
  end(connection);
}

void Registrations::expire(Connection& connection) {
  refuse(connection.server(), "it did not answer the registration of shared memory in time");
  abort(connection);
}

void Registrations::abort(Connection& connection) {
  pool_.disconnect(connection);
  end(connection);
}

void Registrations::end(Connection& connection) {
  pending_.remove(connection.call.number);
  connection.server().registering = false;
  pool_.give_back(connection);
}

void Registrations::refuse(Server& server, const std::string& reason) {
  server.no_regions_until = now() + kSharedMemoryBackoff;
  host_.log(LogLevel::kWarning, "worker " + server.name + ": large tensors go over the socket for the next " +
                                    std::to_string(kSharedMemoryBackoff / kSecond) + " s: " + reason);
}

}  // namespace jigsaw
