// Choice of the worker for the next batch of a task.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "core/generation.h"
#include "core/job.h"
#include "core/task_route.h"
#include "core/variant_shares.h"

namespace jigsaw {

// Independence of a server from those that failed on a piece, in ascending order.
enum class Independence : uint8_t {
  kNone,    // It failed itself.
  kServer,  // Another server of its host failed.
  kNode,    // Only servers of other hosts failed, or none.
};

// Spreads the batches of a task over the workers of its route. Owned by the task; all functions require the engine's
// lock.
class LoadBalancer {
 public:
  explicit LoadBalancer(const TaskRoute& route) : route_(route), shares_(route) {}

  // Notes that the entries of the route were replaced.
  void route_replaced() { shares_.route_replaced(); }

  // Returns the entry whose worker gets the piece, among those of `free` that may answer requests of these generations;
  // nullptr if there is none. `queued` is the number of items that wait.
  const Entry* choose(const Piece& piece, GenerationSet generations, int64_t queued, const FreeEntries& free, Time at);

  // Returns true if a worker is free that may answer requests of these generations.
  bool finds_free(GenerationSet generations, Time at) const;

  // Counts the items of a batch that goes to a variant.
  void count(GenerationSet generations, std::string_view variant, int64_t items) {
    shares_.count(generations, variant, items);
  }

 private:
  // Chooses among the workers of one variant, or of all variants if `variant` has no value, that are at least this
  // independent of those that failed on the piece.
  const Entry* choose_among(const Piece& piece, GenerationSet generations, const FreeEntries& free, Time at,
                            std::optional<std::string_view> variant, Independence least);

  const TaskRoute& route_;
  VariantShares shares_;
  size_t next_entry_ = 0;  // Start of the next round-robin search for a worker.
};

}  // namespace jigsaw
