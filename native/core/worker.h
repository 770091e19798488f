// The servers of workers and their models, as all fronts of this process share them.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "core/base.h"
#include "core/service.h"

namespace jigsaw {

class Connection;
class Task;

// Which process a server is: a server that is started again has another identity, though its name stays.
struct ServerIdentity {
  dev_t device = 0;
  ino_t inode = 0;
  int64_t changed_ns = 0;

  bool operator==(const ServerIdentity&) const = default;

  // Of whatever listens on a Unix socket; all zeros where there is nothing.
  static ServerIdentity of_socket(const std::string& path);
};

// The tritonserver of a worker. Guarded by the engine's lock.
class Server {
 public:
  Server(std::string name, std::string address, bool local);
  ~Server();

  const std::string name;
  const std::string address;  // Path of its Unix socket, or host:port.
  const bool local;           // Whether it listens on a Unix socket of this host.

  // Whether it may not be used any more: a model's process hung or gave an answer that was not its own. Ends when
  // another server listens in its place; looked for at most once in `kLook`. A new one raises the epoch.
  bool condemned(Time at);

  // Bars the process that listens now.
  void condemn(Time at);

  Time no_regions_until = 0;  // It refused shared memory.
  bool registering = false;   // One connection at a time registers shared memory; the others take calls meanwhile.
  size_t users = 0;           // Entries of routes that name it.
  uint64_t epoch = 0;         // Rises each time that the server may have been started again.
  std::vector<std::unique_ptr<Connection>> connections;
  std::vector<Connection*> idle;

 private:
  static constexpr Time kIdentityCheckInterval = 50 * kMillisecond;
  static constexpr Time kRemoteBackoff = 5 * kSecond;  // Nothing tells one process on another host from the next.

  bool condemned_ = false;
  ServerIdentity identity_;
  Time identity_checked_ = 0;
};

// A model on a server. Guarded by the engine's lock.
class Worker {
 public:
  Worker(std::shared_ptr<Server> server, std::string model, std::string lock_path);
  ~Worker();

  const std::shared_ptr<Server> server;
  const std::string model;

  int64_t in_flight() const { return in_flight_; }

  // Counts a call under way. The first one locks the model's slot file, which whoever wants to remove the model locks
  // to learn that nothing is under way. Returns false while somebody else holds it. `locked` tells whether the file was
  // locked just now.
  bool acquire(bool& locked);
  void release();

  bool backing_off(Time at) const { return backoff_until_ > at; }
  Time backoff_until() const { return backoff_until_; }

  // Leaves it out, for longer each time that it fails in a row.
  void failed(Time at);

  // It took a call.
  void reached() { failing_ = false; }

  // Whether the last attempt to reach it failed, also once it is tried again.
  bool failing() const { return failing_; }

  // Leaves it out for a moment, since it is about to be removed.
  void back_off_briefly(Time at) { backoff_until_ = at + 5 * kMillisecond; }

  // A batch was answered. `took` is kept in the service times.
  void answered(int64_t items, Time took);

  // Whether a batch of about this size was answered since the server was started.
  bool has_answered(int64_t items) const;

  ServiceTimes service;
  std::vector<Task*> users;  // Tasks that have it on their route.

 private:
  const std::string lock_path_;
  int lock_ = -1;
  int64_t in_flight_ = 0;
  Time backoff_until_ = 0;
  Time backoff_ = 0;
  bool failing_ = false;
  uint64_t answered_epoch_ = 0;
  uint32_t answered_sizes_ = 0;
};

}  // namespace jigsaw
