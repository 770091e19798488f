// Calls and registrations in flight, by their numbers.
#pragma once

#include <cstdint>
#include <functional>
#include <queue>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/base.h"
#include "core/running_time.h"

namespace jigsaw {

class Connection;

// Finds the connection of a call, and the calls whose deadlines have passed. Deadlines are in running time, so that
// time for which this process was stopped does not count. Owned by the engine; all functions require its lock.
class PendingCalls {
 public:
  // Starts with a random number that is positive as an INT64 and leaves room to count.
  PendingCalls() : next_number_((random_number() >> 16) + 1) {}

  // Returns the number of a new call or registration of a connection.
  uint64_t add(Connection& connection) {
    calls_[next_number_] = &connection;
    return next_number_++;
  }

  // Returns the connection of a call; nullptr if the call has ended.
  Connection* find(uint64_t number) const {
    auto found = calls_.find(number);
    return found == calls_.end() ? nullptr : found->second;
  }

  void remove(uint64_t number) { calls_.erase(number); }

  // Removes all calls, and returns their connections.
  std::vector<Connection*> take_all();

  // Sets the running time at which a call expires.
  void set_deadline(uint64_t number, Time running) { deadlines_.emplace(running, number); }

  // Returns the time at which the first call expires, if this process is not stopped until then; kNever for none.
  Time first_deadline(Time at);

  // Returns the connection of a call that has expired; nullptr if there is none, or no other one.
  Connection* take_expired(Time at);

  RunningTime& running_time() { return running_time_; }

 private:
  // Removes the deadlines of calls that have ended from the head.
  void drop_ended();

  std::unordered_map<uint64_t, Connection*> calls_;
  RunningTime running_time_;
  using Deadline = std::pair<Time, uint64_t>;  // Running time, and number of the call or registration.
  std::priority_queue<Deadline, std::vector<Deadline>, std::greater<>> deadlines_;
  uint64_t next_number_;
};

}  // namespace jigsaw
