// The queue of a task: earliest deadline first within priority classes, grouped by what can share a batch: the
// generations that may answer, and the shapes.
#pragma once

#include <iterator>
#include <map>
#include <set>
#include <span>
#include <tuple>
#include <vector>

#include "core/generation.h"
#include "core/job.h"

namespace jigsaw {

// Pieces of jobs that wait for a worker. Owned by its task; all functions require the engine's lock.
//
// Pieces are ordered by priority, then by the order key of their jobs, which for new jobs is their deadline at the
// task. Each group of equal shapes has its own ordered map, so that a batch is taken from one group without a search.
// The groups form parts by the generations that may answer the requests of the pieces. When another task narrows the
// generations of a request, its pieces here move to their new part when they come to the head of their group. This is
// early enough: a free worker that may take them may also take the pieces ahead of them, unless its entry is closed.
// Therefore `regroup` must be called when an entry is closed. While a generation lacks workers for another task, its
// workers do not take the pieces ahead either, and the few pieces of requests that are bound to it already wait longer.
class Queue {
 public:
  // Maximum number of items of one piece that `capped_items` counts.
  static constexpr int64_t kItemCap = 64;

  bool empty() const { return parts_.empty(); }

  // Returns true if the same generations may answer all waiting requests.
  bool uniform() const { return parts_.size() <= 1; }

  size_t pieces() const { return pieces_; }
  int64_t items() const { return items_; }

  // Number of items, of which each piece counts for at most kItemCap, because very large jobs yield to small ones.
  int64_t capped_items() const { return capped_items_; }

  // Returns the number of queued items that a new job of `items` items has to wait for.
  int64_t items_before(int64_t items) const { return items <= kItemCap ? capped_items_ : items_; }

  // Bytes of the inputs of the queued jobs; a job counts once for each of its pieces.
  size_t bytes() const { return bytes_; }

  void push(Piece piece);

  // Returns the job at the head of the queue, which must not be empty.
  Job& head() { return *first_of(*first_part({})).job; }

  // Returns the first piece in the order of the queue whose request may be answered by other generations than each of
  // the sets in `skipped`; nullptr if there is none.
  Piece* first(std::span<const GenerationSet> skipped);

  // Removes and returns the first piece whose request may be answered by exactly these generations.
  Piece pop(GenerationSet generations) { return pop_from(parts_.find(generations)); }

  // Moves pieces whose requests have been narrowed to fewer generations while they waited to their new groups.
  void regroup();

  // Returns true if `take` finds this many items for requests that may be answered by exactly these generations, unless
  // it drops some of them or ends the batch before a piece.
  bool fills(GenerationSet generations, int64_t limit) const;

  // Passes the first pieces of up to `most` groups to `drop` and removes those for which it returns true. Continues
  // within a group until `drop` returns false.
  template <typename Drop>
  void sweep(Drop drop, size_t max_groups) {
    for (auto part = parts_.begin(); part != parts_.end();) {
      auto next_part = std::next(part);
      auto group = part->second.groups.begin();
      // A part is removed with its last group, so the groups are counted.
      for (size_t left = part->second.groups.size(); left > 0 && max_groups > 0; left--, max_groups--) {
        auto next = std::next(group);
        bool last = false;
        while (!last && drop(group->second.begin()->second)) {
          last = group->second.size() == 1;
          remove(part, group, group->second.begin());
        }
        group = next;
      }
      part = next_part;
    }
  }

  // Passes pieces to `drop` in the order of their admission deadlines, regardless of priority, and removes those for
  // which it returns true. Stops when it returns false.
  template <typename Drop>
  void sweep_by_deadline(Drop drop) {
    while (!due_.empty()) {
      const Due& first = *due_.begin();
      auto part = parts_.find(first.generations);
      auto group = part->second.groups.find(*first.shape);
      auto found = group->second.find(first.key);
      if (!drop(found->second)) return;
      remove(part, group, found);
    }
  }

  // Returns the earliest admission deadline of all pieces; kNever if no piece has one.
  Time first_deadline() const { return due_.empty() ? kNever : due_.begin()->deadline; }

  // Removes and returns up to `limit` items of the group that has the first piece whose request may be answered by
  // exactly these generations. The rest of a job that exceeds the limit is queued again behind the jobs that have
  // arrived in the meantime. Pieces for which `drop` returns true are removed and not returned. The batch ends before a
  // piece for which `joins` returns false. `bind` narrows the generations of the request of a piece.
  template <typename Drop, typename Joins, typename Bind>
  std::vector<Piece> take(GenerationSet generations, int64_t limit, Time at, Drop drop, Joins joins, Bind bind) {
    std::vector<Piece> batch;
    auto from = parts_.find(generations);
    if (from == parts_.end()) return batch;
    const Shape shape = from->second.heads.begin()->second->first;
    int64_t items = 0;
    while (items < limit) {
      auto part = parts_.find(generations);
      if (part == parts_.end()) break;
      auto group = part->second.groups.find(shape);
      if (group == part->second.groups.end()) break;
      auto found = group->second.begin();
      Piece& first = found->second;
      if (generations_of(first) != generations) {
        move(part, group, found);
        continue;
      }
      if (!batch.empty() && (first.alone || first.failures != batch.front().failures)) break;
      if (!joins(first)) break;
      Piece piece = remove(part, group, found);
      if (drop(piece)) continue;
      bind(piece);
      if (piece.size() > limit - items) {
        Piece rest = piece;
        rest.start = piece.stop = piece.start + (limit - items);
        hold_flow(rest);
        requeue(std::move(rest), at);
      }
      items += piece.size();
      bool alone = piece.alone;
      batch.push_back(std::move(piece));
      if (alone) break;
    }
    return batch;
  }

 private:
  using Key = std::tuple<int, Time, uint64_t>;  // (negative priority, order of the job, sequence number)
  using Pieces = std::map<Key, Piece>;
  using Groups = std::map<Shape, Pieces>;
  using Group = Groups::value_type;

  // Pieces whose requests may be answered by the same generations.
  struct Part {
    Groups groups;
    std::map<Key, Group*> heads;  // Group by the key of its first piece.
  };
  using Parts = std::map<GenerationSet, Part>;

  // Entry of `due_`.
  struct Due {
    Time deadline;
    Key key;
    GenerationSet generations;  // Key of its part.
    const Shape* shape;         // Key of its group in the part.

    bool operator<(const Due& other) const { return std::tie(deadline, key) < std::tie(other.deadline, other.key); }
  };

  // Returns the part with the first piece in the order of the queue, or the end of the parts.
  Parts::iterator first_part(std::span<const GenerationSet> skipped);
  static Piece& first_of(Parts::value_type& part) { return part.second.heads.begin()->second->second.begin()->second; }
  Piece pop_from(Parts::iterator part);
  Piece remove(Parts::iterator part, Groups::iterator group, Pieces::iterator at);
  // Moves a piece to the group in which it belongs. It keeps its place in the order.
  void move(Parts::iterator part, Groups::iterator group, Pieces::iterator at);
  void insert(Key key, Piece piece);
  void requeue(Piece piece, Time at);
  static void hold_flow(const Piece& piece);
  static GenerationSet generations_of(const Piece& piece);

  static int64_t capped_size(const Piece& piece);

  Parts parts_;
  std::set<Due> due_;         // All pieces with an admission deadline.
  uint64_t next_number_ = 0;  // Sequence number of the next piece, which breaks ties.
  size_t pieces_ = 0;
  int64_t items_ = 0;
  int64_t capped_items_ = 0;
  size_t bytes_ = 0;
};

}  // namespace jigsaw
