// Servers and their models, which all fronts of this process share.
#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/base.h"
#include "core/free_entries.h"
#include "core/lock.h"
#include "core/service.h"

namespace jigsaw {

class Connection;
class Task;

// Identity of a server process: the modification time of its socket, in nanoseconds. A restarted server keeps its name
// and makes another socket. A process that has to make its socket again gives it the time of the first one.
using ServerIdentity = int64_t;

constexpr ServerIdentity kNoServer = 0;

// Returns the identity of the process that listens on a Unix socket; kNoServer if the socket does not exist.
ServerIdentity identity_of_socket(const std::string& path);

// The tritonserver of a worker, with its connections. Shared by its `Worker`s; guarded by the engine's lock.
class Server {
 public:
  Server(std::string name, std::string address, bool remote);
  ~Server();

  const std::string name;
  const std::string address;  // Path of its Unix socket.
  const bool remote;          // True if it runs on another host: a proxy listens on the socket.
  std::string node;           // Name of the host that it runs on, by the last route; empty if it is not known.

  // Returns true if the server is out of service, because a model hung or answered another call. This ends when another
  // process listens at the address.
  bool condemned(Time at) {
    if (condemned_since_ != kNever) check_identity(at);
    return condemned_since_ != kNever;
  }

  // Raises the epoch if another process listens at the address, at most once per kIdentityCheckInterval. For a remote
  // server, the proxy replaces the socket when another process has started there.
  void check_identity(Time at);

  // Time since which it is out of service; kNever if it is in service.
  Time condemned_since(Time at) { return condemned(at) ? condemned_since_ : kNever; }

  // Takes the process that listens now out of service.
  void condemn(Time at);

  // Identity of the process that listened when this was last looked up.
  ServerIdentity identity() const { return identity_; }

  Time no_regions_until = 0;  // End of the time for which it gets no shared memory.
  bool registering = false;   // True while a connection, at most one at a time, registers shared memory.
  size_t route_entries = 0;   // Number of route entries that name it.
  uint64_t epoch = 0;         // Number that is incremented whenever the server may have been restarted.
  std::vector<std::unique_ptr<Connection>> connections;
  std::vector<Connection*> idle;  // Connections without a call.

 private:
  static constexpr Time kIdentityCheckInterval = 50 * kMillisecond;

  Time condemned_since_ = kNever;
  ServerIdentity identity_ = kNoServer;
  Time identity_checked_ = 0;
};

// An entry of a task's route that names a worker.
struct Use {
  Task* task;
  FreeEntries* free;  // The route's entries with a free slot.
  size_t entry;       // Index of the entry.
  int64_t capacity;   // Maximum number of concurrent calls, an early one not counted.
};

// A model on a server. Shared by the routes that name it and its calls in flight; guarded by the engine's lock.
class Worker {
 public:
  Worker(std::shared_ptr<Server> server, std::string model, KeptLocks& kept, std::string slot_file);

  const std::shared_ptr<Server> server;
  const std::string model;

  int64_t in_flight() const { return calls_->count(); }

  // Counts a call in flight. Locks the model's slot file if it is not locked. The controller locks that file before it
  // removes the model, to be sure that no call is in flight. Returns false if the file cannot be locked. Sets `locked`
  // to true if this call locked the file.
  bool acquire(Time at, bool& locked);
  void release(Time at);

  const std::vector<Use>& uses() const { return uses_; }

  // Adds the worker to a route, and removes it from all entries of a task's route.
  void add(const Use& use);
  void remove(const Task& task);

  // Connection of the call that was sent although all slots were in use, and that gets the next free one; nullptr if
  // there is none.
  Connection* early = nullptr;

  Time no_early_until = 0;  // End of the time for which it gets no early calls.

  // Returns true during a backoff, in which the worker gets no calls.
  bool backing_off(Time at) const { return backoff_until_ > at; }
  Time backoff_until() const { return backoff_until_; }

  // Starts a backoff, whose length doubles with each consecutive failure, from 100 ms to 2 s, or to 300 ms if the model
  // cannot have executed the call.
  void failed(bool executed, Time at);

  // Notes that the server has accepted a call.
  void reached() { failing_since_ = kNever; }

  // Time since which the worker cannot be reached; kNever if it can. It cannot from a failure until the server accepts
  // or answers a call, also after the backoff, and while the server is out of service.
  Time unreachable_since(Time at) { return std::min(failing_since_, server->condemned_since(at)); }

  // Starts a short backoff, because the model is about to be removed.
  void back_off_briefly(Time at) { backoff_until_ = at + 5 * kMillisecond; }

  // Records the answer to a batch, and its service time if it is known.
  void answered(int64_t items, std::optional<Time> took);

  // Returns true if the server has answered a batch of about this size since it was started.
  bool has_answered(int64_t items) const;

  ServiceTimes service;

 private:
  // Notes in the routes whether the worker has a free slot.
  void note_load();

  std::vector<Use> uses_;
  const std::shared_ptr<Users> calls_;  // Calls in flight.
  Time backoff_until_ = 0;
  Time backoff_ = 0;  // Duration of the last backoff; 0 after an answer.
  Time failing_since_ = kNever;
  uint64_t answered_epoch_ = 0;  // Epoch of the server to which `answered_sizes_` belongs.
  uint32_t answered_sizes_ = 0;  // Set of the batch sizes that were answered; see `size_bit`.
};

}  // namespace jigsaw
