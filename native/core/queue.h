// The queue of a task: earliest deadline first within priority classes, grouped by the shapes that can share a batch.
#pragma once

#include <iterator>
#include <map>
#include <set>
#include <tuple>
#include <vector>

#include "core/job.h"

namespace jigsaw {

// Pieces of jobs that wait for a worker. Owned by its task; all functions require the engine's lock.
//
// Pieces are ordered by priority, then by the order key of their jobs, which for new jobs is their deadline at the
// task. Each group of equal shapes has its own ordered map, so that a batch is taken from one group without a search.
class Queue {
 public:
  // Maximum number of items of one piece that `capped_items` counts.
  static constexpr int64_t kItemCap = 64;

  bool empty() const { return heads_.empty(); }
  size_t pieces() const { return pieces_; }
  int64_t items() const { return items_; }

  // Number of items, of which each piece counts for at most kItemCap, because very large jobs yield to small ones.
  int64_t capped_items() const { return capped_items_; }

  // Returns the number of queued items that a new job of `items` items has to wait for.
  int64_t items_before(int64_t items) const { return items <= kItemCap ? capped_items_ : items_; }

  // Bytes of the inputs of the queued jobs; a job counts once for each of its pieces.
  size_t bytes() const { return bytes_; }

  void push(Piece piece);

  // Returns the piece at the head of the queue, which must not be empty.
  Piece& top() { return heads_.begin()->second->second.begin()->second; }

  // Removes and returns the piece at the head of the queue.
  Piece pop();

  // Passes the first pieces of up to `most` groups to `drop` and removes those for which it returns true. Continues
  // within a group until `drop` returns false.
  template <typename Drop>
  void sweep(Drop drop, size_t max_groups) {
    for (auto group = groups_.begin(); group != groups_.end() && max_groups > 0; max_groups--) {
      auto next = std::next(group);
      bool last = false;
      while (!last && drop(group->second.begin()->second)) {
        last = group->second.size() == 1;
        pop_from(group);
      }
      group = next;
    }
  }

  // Passes pieces to `drop` in the order of their admission deadlines, regardless of priority, and removes those for
  // which it returns true. Stops when it returns false.
  template <typename Drop>
  void sweep_by_deadline(Drop drop) {
    while (!due_.empty()) {
      const Due& first = *due_.begin();
      auto group = groups_.find(*first.shape);
      auto found = group->second.find(first.key);
      if (!drop(found->second)) return;
      remove(group, found);
    }
  }

  // Returns the earliest admission deadline of all pieces; kNever if no piece has one.
  Time first_deadline() const { return due_.empty() ? kNever : due_.begin()->deadline; }

  // Removes and returns up to `limit` items of the group at the head of the queue. The rest of a job that exceeds the
  // limit is queued again behind the jobs that have arrived in the meantime. Pieces for which `drop` returns true are
  // removed and not returned.
  template <typename Drop>
  std::vector<Piece> take(int64_t limit, Time at, Drop drop) {
    std::vector<Piece> batch;
    if (empty()) return batch;
    Group* group = &*heads_.begin()->second;
    const Shape shape = group->first;
    int64_t items = 0;
    while (items < limit) {
      auto found = groups_.find(shape);
      if (found == groups_.end()) break;
      Piece& first = found->second.begin()->second;
      if (!batch.empty() && (first.alone || first.failed_servers != batch.front().failed_servers)) break;
      Piece piece = pop_from(found);
      if (drop(piece)) continue;
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

  // Entry of `due_`.
  struct Due {
    Time deadline;
    Key key;
    const Shape* shape;  // Key of its group in `groups_`.

    bool operator<(const Due& other) const { return std::tie(deadline, key) < std::tie(other.deadline, other.key); }
  };

  Piece pop_from(Groups::iterator group) { return remove(group, group->second.begin()); }
  Piece remove(Groups::iterator group, Pieces::iterator at);
  void insert(Key key, Piece piece);
  void requeue(Piece piece, Time at);
  static void hold_flow(const Piece& piece);

  static int64_t capped_size(const Piece& piece);

  Groups groups_;
  std::map<Key, Group*> heads_;  // Group by the key of its first piece.
  std::set<Due> due_;            // All pieces with an admission deadline.
  uint64_t next_number_ = 0;     // Sequence number of the next piece, which breaks ties.
  size_t pieces_ = 0;
  int64_t items_ = 0;
  int64_t capped_items_ = 0;
  size_t bytes_ = 0;
};

}  // namespace jigsaw
