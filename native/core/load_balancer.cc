#include "core/load_balancer.h"

#include <algorithm>

namespace jigsaw {
namespace {

// Servers whose host is not known count as being on one host.
Independence independence(const Piece& piece, const Server& server) {
  auto found = Independence::kNode;
  for (const FailedServer& failed : piece.failures) {
    if (failed.server == &server) return Independence::kNone;
    if (failed.node == server.node) found = Independence::kServer;
  }
  return found;
}

}  // namespace

const Entry* LoadBalancer::choose(const Piece& piece, GenerationSet generations, int64_t queued,
                                  const FreeEntries& free, Time at) {
  // A host that hangs takes all of its workers with it, and a call is retried once only: prefer another host. If all
  // usable workers that may take the piece have failed on it, they are tried again.
  auto least = Independence::kNone;
  if (!piece.failures.empty())
    for (const Entry& entry : route_.entries())
      if (route_.may_answer(entry, generations) && entry.is_usable(at))
        least = std::max(least, independence(piece, *entry.worker->server));
  if (!shares_.apply(generations)) return choose_among(piece, generations, free, at, std::nullopt, least);
  for (std::string_view variant : shares_.order(generations, queued, at)) {
    const Entry* found = choose_among(piece, generations, free, at, variant, least);
    if (found) return found;
  }
  return nullptr;
}

bool LoadBalancer::finds_free(GenerationSet generations, Time at) const {
  const std::vector<Entry>& entries = route_.entries();
  for (size_t i = route_.free().next(0); i < entries.size(); i = route_.free().next(i + 1))
    if (route_.may_answer(entries[i], generations) && entries[i].is_usable(at)) return true;
  return false;
}

const Entry* LoadBalancer::choose_among(const Piece& piece, GenerationSet generations, const FreeEntries& free, Time at,
                                        std::optional<std::string_view> variant, Independence least) {
  const Entry* best = nullptr;
  double least_cost = 0;
  auto consider = [&](const Entry& entry) {
    if (!entry.is_usable(at) || !route_.may_answer(entry, generations)) return;
    if (variant && entry.route.variant != *variant) return;
    if (independence(piece, *entry.worker->server) < least) return;
    // Prefer fast workers, and among equally fast ones the least busy. The margin of 10 % lets the round-robin start
    // decide between workers that are nearly equal.
    double load = double(entry.worker->in_flight()) / double(entry.capacity);
    double cost = (entry.worker->service.mean(1) + 1) * (1 + load);
    if (!best || cost < 0.9 * least_cost) {
      best = &entry;
      least_cost = cost;
    }
  };
  const std::vector<Entry>& entries = route_.entries();
  size_t count = entries.size();
  if (count == 0) return nullptr;
  size_t start = next_entry_++ % count;
  for (size_t i = free.next(start); i < count; i = free.next(i + 1)) consider(entries[i]);
  for (size_t i = free.next(0); i < start; i = free.next(i + 1)) consider(entries[i]);
  return best;
}

}  // namespace jigsaw
