// Generations of a graph, and the request's choice of one of them while the graph changes from one to the next.
#pragma once

#include <bit>
#include <memory>
#include <string>

#include "core/lock.h"
#include "core/metrics.h"

namespace jigsaw {

// A set of generations of a graph. Each generation that a route names gets the next of 64 bits, in turn. `parse_route`
// rejects a route that names more than 64 of them, and a request ends long before 64 others have followed its own, so
// no request takes one generation for another.
using GenerationSet = uint64_t;

// Set of all generations. A request starts with it, and an entry that names no generation has it.
inline constexpr GenerationSet kAnyGeneration = ~GenerationSet{0};

// Number of generations that a set can tell apart.
inline constexpr size_t kMaxGenerations = 64;

// A generation of a graph that routes name. Shared by route entries and by requests that only it may answer.
struct Generation {
  Generation(Host& host, const std::string& graph, int64_t number, GenerationSet bit, KeptLocks& kept,
             std::string lock_file)
      : number(number),
        bit(bit),
        requests(std::make_shared<Users>(kept, std::move(lock_file), FileLock::Kind::kShared)),
        metrics(host, graph, number) {}

  const int64_t number;
  const GenerationSet bit;  // Set of this generation alone.
  // Requests that only this generation may answer. The controller waits for them before it removes the generation.
  const std::shared_ptr<Users> requests;
  GenerationMetrics metrics;
};

// The generations that may answer a request. Tasks narrow them: the answers of all calls for a request come from one
// generation. Shared by the flows of a request that is split. Guarded by the engine's lock.
class Binding {
 public:
  explicit Binding(size_t flows) : flows_(flows) {}

  GenerationSet generations() const { return generations_; }

  // Only generation that may answer the request; nullptr while there are several.
  const std::shared_ptr<Generation>& only() const { return only_; }

  // Narrows the generations. If a single one is left that was not before, `only` is this generation, of which another
  // request or the caller is a user.
  void narrow(GenerationSet generations, const std::shared_ptr<Generation>& only, Time at);

  // Notes that a flow of the request has ended. After the last one, the request no longer uses its generation.
  void end_flow();

 private:
  GenerationSet generations_ = kAnyGeneration;
  std::shared_ptr<Generation> only_;
  size_t flows_;  // Number of flows that have not ended.
};

}  // namespace jigsaw
