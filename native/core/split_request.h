// The items of a client's batch as separate requests.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "core/host.h"
#include "core/spec.h"

namespace jigsaw {

// A request whose items are executed as separate requests and whose answers are stacked again. Deletes itself after the
// last item was released. Any thread may respond to an item.
class SplitRequest {
 public:
  SplitRequest(const FrontSpec& spec, Request* whole, std::vector<size_t> wanted, size_t items);
  ~SplitRequest();

  Request* item(size_t index);

 private:
  class Item;

  // Notes that an item was answered. After the last one, answers the whole request.
  void responded();

  // Stacks the outputs of the items. Returns a failure if they do not fit together, else nullptr.
  std::unique_ptr<Failure> stack();

  // Notes that an item was released. After the last one, releases the whole request.
  void released();

  const FrontSpec& spec_;
  Request* whole_;
  std::vector<size_t> wanted_;
  std::vector<std::unique_ptr<Item>> items_;
  std::atomic<size_t> unanswered_, unreleased_;
};

// Returns item `index` of a batch. `offsets` are those of the elements of a BYTES tensor, else empty.
Value item_of(const Value& value, size_t index, size_t items, const std::vector<size_t>& offsets);

}  // namespace jigsaw
