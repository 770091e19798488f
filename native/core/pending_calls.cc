#include "core/pending_calls.h"

#include <algorithm>

namespace jigsaw {

std::vector<Connection*> PendingCalls::take_all() {
  std::vector<Connection*> found;
  for (auto& [number, connection] : std::exchange(calls_, {})) found.push_back(connection);
  return found;
}

Time PendingCalls::first_deadline(Time at) {
  drop_ended();
  if (deadlines_.empty()) return kNever;
  Time deadline = deadlines_.top().first;
  return at + deadline - std::min(deadline, running_time_.at(at));
}

Connection* PendingCalls::take_expired(Time at) {
  drop_ended();
  if (deadlines_.empty() || deadlines_.top().first > running_time_.at(at)) return nullptr;
  uint64_t number = deadlines_.top().second;
  deadlines_.pop();
  return find(number);
}

void PendingCalls::drop_ended() {
  while (!deadlines_.empty() && !calls_.contains(deadlines_.top().second)) deadlines_.pop();
}

}  // namespace jigsaw
