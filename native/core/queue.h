// A task's queue: earliest deadline first within classes of priority, by the shapes that may share a batch.
#pragma once

#include <iterator>
#include <map>
#include <set>
#include <tuple>
#include <vector>

#include "core/job.h"

namespace jigsaw {

class Queue {
 public:
  // Items of one job that count as prompt.
  static constexpr int64_t kItemCap = 64;

  bool empty() const { return heads_.empty(); }
  size_t pieces() const { return pieces_; }
  int64_t items() const { return items_; }

  // The same without most of the items of very large jobs, which give way to others.
  int64_t capped_items() const { return capped_items_; }

  // The items that a job of so many waits for.
  int64_t items_before(int64_t items) const { return items <= kItemCap ? capped_items_ : items_; }

  size_t bytes() const {
    return bytes_;
  }  // Of the inputs of the jobs that are here, a job counted once for each piece.

  void push(Piece piece);

  // The piece that goes first.
  Piece& top() { return heads_.begin()->second->second.begin()->second; }

  // Takes the first piece.
  Piece pop();

  // Offers the first pieces of up to `most` groups of shapes to `take_over`, and takes out those for which it returns
  // true, group by group until it returns false.
  template <typename Drop>
  void sweep(Drop drop, size_t most) {
    for (auto group = groups_.begin(); group != groups_.end() && most > 0; most--) {
      auto next = std::next(group);
      bool last = false;
      while (!last && drop(group->second.begin()->second)) {
        last = group->second.size() == 1;
        pop_from(group);
      }
      group = next;
    }
  }

  // Offers pieces to `take_over` in the order of their deadlines, whatever goes first, and takes out those for which it
  // returns true, until it returns false.
  template <typename Drop>
  void sweep_by_deadline(Drop drop) {
    while (!due_.empty()) {
      const Due& first = *due_.begin();
      auto group = groups_.find(*first.shape);
      auto found = group->second.find(first.key);
      if (!drop(found->second)) return;
      take_out(group, found);
    }
  }

  // The earliest deadline of all pieces; kNever where none has one.
  Time first_deadline() const { return due_.empty() ? kNever : due_.begin()->deadline; }

  // Takes up to `limit` items of one group, from its first piece on. What is left of a job gets the place of one that
  // comes now. `usable` drops pieces: it returns false for those that it has taken over.
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
  using Key = std::tuple<int, Time, uint64_t>;
  using Pieces = std::map<Key, Piece>;
  using Groups = std::map<Shape, Pieces>;
  using Group = Groups::value_type;

  struct Due {
    Time deadline;
    Key key;
    const Shape* shape;  // Of its group.

    bool operator<(const Due& other) const { return std::tie(deadline, key) < std::tie(other.deadline, other.key); }
  };

  Piece pop_from(Groups::iterator group) { return take_out(group, group->second.begin()); }
  Piece take_out(Groups::iterator group, Pieces::iterator at);
  void insert(Key key, Piece piece);
  void requeue(Piece piece, Time at);
  static void hold_flow(const Piece& piece);

  static int64_t capped_size(const Piece& piece);

  Groups groups_;
  std::map<Key, Group*> heads_;  // The first key of each group.
  std::set<Due> due_;            // All pieces that have a deadline.
  uint64_t number_ = 0;
  size_t pieces_ = 0;
  int64_t items_ = 0;
  int64_t capped_items_ = 0;
  size_t bytes_ = 0;
};

}  // namespace jigsaw
