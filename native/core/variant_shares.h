// Shares of the variants in the items of a task, for graphs whose accuracy is a mean over requests.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "core/generation.h"
#include "core/task_route.h"

namespace jigsaw {

// Counts the items that each variant receives. They are counted separately for each set of generations that may answer
// the requests, because requests of different generations have different variants to choose from. Owned by the load
// balancer of a task; all functions require the engine's lock.
class VariantShares {
 public:
  explicit VariantShares(const TaskRoute& route) : route_(route) {}

  // Notes that the entries of the route were replaced. Where the shares differ, the counts start again at 0.
  void route_replaced();

  // Returns true if the entries that may answer such requests share the items between several variants.
  bool apply(GenerationSet generations) { return of(generations).size() > 1; }

  // Returns the variants that may get the next batch, the one furthest behind its share first. `queued` is the number
  // of items that wait.
  std::vector<std::string_view> order(GenerationSet generations, int64_t queued, Time at);

  // Counts items that a variant receives.
  void count(GenerationSet generations, std::string_view variant, int64_t items);

 private:
  struct Share {
    std::string variant;
    double share = 0;             // Fraction of the items that the variant should receive.
    double taken = 0;             // Number of items that it has received.
    std::vector<size_t> entries;  // Indices of the variant's entries, those with the largest batches first.
  };
  using Shares = std::vector<Share>;

  // Returns the shares of the variants whose entries may answer such requests, with counts of 0.
  Shares make(GenerationSet generations) const;
  // Returns these shares with the counts so far.
  Shares& of(GenerationSet generations);

  const TaskRoute& route_;
  std::map<GenerationSet, Shares> shares_;
};

}  // namespace jigsaw
