#include "core/queue.h"

#include <algorithm>

#include "core/flow.h"

namespace jigsaw {

void Queue::push(Piece piece) {
  Key key{-piece.job->priority, piece.job->order, next_number_++};
  insert(key, std::move(piece));
}

Piece Queue::pop() { return pop_from(groups_.find(heads_.begin()->second->first)); }

Piece Queue::remove(Groups::iterator group, Pieces::iterator at) {
  Piece piece = std::move(at->second);
  bool first = at == group->second.begin();
  if (piece.job->admission_deadline != kNever) due_.erase({piece.job->admission_deadline, at->first, &group->first});
  if (first) heads_.erase(at->first);
  group->second.erase(at);
  if (group->second.empty())
    groups_.erase(group);
  else if (first)
    heads_.emplace(group->second.begin()->first, &*group);
  pieces_--;
  items_ -= piece.size();
  capped_items_ -= capped_size(piece);
  bytes_ -= piece.job->size;
  return piece;
}

int64_t Queue::capped_size(const Piece& piece) { return std::min(piece.size(), kItemCap); }

void Queue::insert(Key key, Piece piece) {
  pieces_++;
  items_ += piece.size();
  capped_items_ += capped_size(piece);
  bytes_ += piece.job->size;
  auto group = groups_.try_emplace(piece.job->group).first;
  Pieces& pieces = group->second;
  if (pieces.empty() || key < pieces.begin()->first) {
    if (!pieces.empty()) heads_.erase(pieces.begin()->first);
    heads_.emplace(key, &*group);
  }
  if (piece.job->admission_deadline != kNever) due_.insert({piece.job->admission_deadline, key, &group->first});
  pieces.emplace(key, std::move(piece));
}

void Queue::requeue(Piece piece, Time at) {
  Job& job = *piece.job;
  // The rest of a large job yields to jobs that have arrived in the meantime.
  job.order = std::max(job.order, at + std::min(job.window, kNever - at));
  push(std::move(piece));
}

void Queue::hold_flow(const Piece& piece) { piece.job->flow->hold(); }

}  // namespace jigsaw
