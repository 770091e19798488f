// The entries of a route whose workers have a free slot.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace jigsaw {

// A set of indices. With hundreds of busy workers, finding a free one takes no longer than with few.
class FreeEntries {
 public:
  // Empties the set, for this many entries.
  void reset(size_t entries) {
    entries_ = entries;
    words_.assign((entries + kBits - 1) / kBits, 0);
  }

  void set(size_t entry, bool free) {
    uint64_t bit = uint64_t{1} << (entry % kBits);
    uint64_t& word = words_[entry / kBits];
    word = free ? word | bit : word & ~bit;
  }

  // Returns the first free entry from this one on; the number of entries if there is none.
  size_t next(size_t entry) const {
    for (size_t at = entry / kBits; at < words_.size(); at++) {
      uint64_t word = words_[at];
      if (at == entry / kBits) word &= ~uint64_t{0} << (entry % kBits);
      if (word) return at * kBits + size_t(std::countr_zero(word));
    }
    return entries_;
  }

 private:
  static constexpr size_t kBits = 64;

  size_t entries_ = 0;
  std::vector<uint64_t> words_;
};

}  // namespace jigsaw
