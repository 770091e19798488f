#include "core/variant_shares.h"

#include <algorithm>
#include <functional>

namespace jigsaw {

void VariantShares::route_replaced() {
  std::erase_if(shares_, [&](auto& item) {
    Shares& before = item.second;
    Shares fresh = make(item.first);
    bool same = std::ranges::equal(
        before, fresh, [](const Share& a, const Share& b) { return a.variant == b.variant && a.share == b.share; });
    if (!same || fresh.empty()) return true;
    for (size_t i = 0; i < fresh.size(); i++) before[i].entries = std::move(fresh[i].entries);
    return false;
  });
}

VariantShares::Shares VariantShares::make(GenerationSet generations) const {
  Shares shares;
  const std::vector<Entry>& entries = route_.entries();
  for (const Entry& entry : entries) {
    if (entry.route.share <= 0 || !route_.may_answer(entry, generations)) continue;
    if (std::ranges::find(shares, entry.route.variant, &Share::variant) == shares.end())
      shares.push_back({entry.route.variant, entry.route.share, 0, {}});
  }
  for (size_t i = 0; i < entries.size(); i++) {
    auto share = std::ranges::find(shares, entries[i].route.variant, &Share::variant);
    if (share != shares.end() && route_.may_answer(entries[i], generations)) share->entries.push_back(i);
  }
  for (Share& share : shares)
    std::ranges::stable_sort(share.entries, std::greater(), [&](size_t i) { return entries[i].limit; });
  return shares;
}

VariantShares::Shares& VariantShares::of(GenerationSet generations) {
  auto [found, inserted] = shares_.try_emplace(generations);
  if (inserted) found->second = make(generations);
  return found->second;
}

std::vector<std::string_view> VariantShares::order(GenerationSet generations, int64_t queued, Time at) {
  Shares& shares = of(generations);
  // A variant may be ahead of its share by at most one batch. While no worker of a variant is usable, the others divide
  // its share among them.
  struct Candidate {
    double ahead;
    std::string_view variant;
  };
  std::vector<Candidate> candidates;
  double share_sum = 0, taken_sum = 0;
  int64_t largest = 0;
  std::vector<std::pair<Share*, int64_t>> present;
  for (Share& share : shares) {
    const std::vector<Entry>& entries = route_.entries();
    auto usable = std::ranges::find_if(share.entries, [&](size_t i) { return entries[i].is_usable(at); });
    if (usable == share.entries.end()) continue;
    int64_t batch = entries[*usable].limit;
    present.emplace_back(&share, batch);
    share_sum += share.share;
    taken_sum += share.taken;
    largest = std::max(largest, batch);
  }
  if (present.size() != shares.size())
    for (Share& share : shares) share.taken = 0, taken_sum = 0;
  for (auto& [share, batch] : present) {
    double count = double(std::min(queued, batch));
    double ahead = share->taken + count - share->share / share_sum * (taken_sum + count);
    if (ahead <= double(largest)) candidates.push_back({ahead - count, share->variant});
  }
  std::sort(candidates.begin(), candidates.end(),
            [](const Candidate& a, const Candidate& b) { return a.ahead < b.ahead; });
  std::vector<std::string_view> found;
  for (const Candidate& candidate : candidates) found.push_back(candidate.variant);
  return found;
}

void VariantShares::count(GenerationSet generations, std::string_view variant, int64_t items) {
  for (Share& share : of(generations))
    if (share.variant == variant) share.taken += double(items);
}

}  // namespace jigsaw
