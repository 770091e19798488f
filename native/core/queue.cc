#include "core/queue.h"

#include "core/flow.h"

namespace jigsaw {

void Queue::push(Piece piece) {
  Key key{-piece.job->priority, piece.job->order, number_++};
  insert(key, std::move(piece));
}

Piece Queue::pop() { return pop_of(groups_.find(tops_.begin()->second->first)); }

Piece Queue::pop_of(Groups::iterator group) {
  auto first = group->second.begin();
  Piece piece = std::move(first->second);
  tops_.erase(first->first);
  group->second.erase(first);
  if (group->second.empty())
    groups_.erase(group);
  else
    tops_.emplace(group->second.begin()->first, &*group);
  pieces_--;
  items_ -= piece.size();
  bytes_ -= piece.job->size;
  return piece;
}

void Queue::insert(Key key, Piece piece) {
  pieces_++;
  items_ += piece.size();
  bytes_ += piece.job->size;
  auto group = groups_.try_emplace(piece.job->group).first;
  Pieces& pieces = group->second;
  if (pieces.empty() || key < pieces.begin()->first) {
    if (!pieces.empty()) tops_.erase(pieces.begin()->first);
    tops_.emplace(key, &*group);
  }
  pieces.emplace(key, std::move(piece));
}

void Queue::push_behind(Piece piece, Time behind) {
  Time& order = piece.job->order;
  if (order < kNever - behind) order += behind;
  push(std::move(piece));
}

void Queue::hold_again(const Piece& piece) { piece.job->flow->hold(); }

}  // namespace jigsaw
