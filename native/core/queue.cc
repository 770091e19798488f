#include "core/queue.h"

#include <algorithm>

#include "core/flow.h"

namespace jigsaw {

void Queue::push(Piece piece) {
  Key key{-piece.job->priority, piece.job->order, next_number_++};
  insert(key, std::move(piece));
}

Queue::Parts::iterator Queue::first_part(std::span<const GenerationSet> skipped) {
  auto found = parts_.end();
  for (auto part = parts_.begin(); part != parts_.end(); ++part) {
    if (std::find(skipped.begin(), skipped.end(), part->first) != skipped.end()) continue;
    if (found == parts_.end() || part->second.heads.begin()->first < found->second.heads.begin()->first) found = part;
  }
  return found;
}

Piece* Queue::first(std::span<const GenerationSet> skipped) {
  for (;;) {
    auto part = first_part(skipped);
    if (part == parts_.end()) return nullptr;
    Piece& piece = first_of(*part);
    if (generations_of(piece) == part->first) return &piece;
    auto group = part->second.groups.find(part->second.heads.begin()->second->first);
    move(part, group, group->second.begin());
  }
}

bool Queue::fills(GenerationSet generations, int64_t limit) const {
  auto part = parts_.find(generations);
  if (part == parts_.end()) return false;
  int64_t items = 0;
  for (const auto& [key, piece] : part->second.heads.begin()->second->second) {
    if (piece.alone) break;
    items += piece.size();
    if (items >= limit) return true;
  }
  return false;
}

void Queue::regroup() {
  std::vector<std::tuple<Parts::iterator, Groups::iterator, Pieces::iterator>> narrowed;
  for (auto part = parts_.begin(); part != parts_.end(); ++part)
    for (auto group = part->second.groups.begin(); group != part->second.groups.end(); ++group)
      for (auto piece = group->second.begin(); piece != group->second.end(); ++piece)
        if (generations_of(piece->second) != part->first) narrowed.emplace_back(part, group, piece);
  for (auto& [part, group, piece] : narrowed) move(part, group, piece);
}

Piece Queue::pop_from(Parts::iterator part) {
  auto group = part->second.groups.find(part->second.heads.begin()->second->first);
  return remove(part, group, group->second.begin());
}

Piece Queue::remove(Parts::iterator part, Groups::iterator group, Pieces::iterator at) {
  auto& [groups, heads] = part->second;
  Piece piece = std::move(at->second);
  bool first = at == group->second.begin();
  if (piece.job->admission_deadline != kNever)
    due_.erase({piece.job->admission_deadline, at->first, part->first, &group->first});
  if (first) heads.erase(at->first);
  group->second.erase(at);
  if (group->second.empty())
    groups.erase(group);
  else if (first)
    heads.emplace(group->second.begin()->first, &*group);
  if (groups.empty()) parts_.erase(part);
  pieces_--;
  items_ -= piece.size();
  capped_items_ -= capped_size(piece);
  bytes_ -= piece.job->size;
  return piece;
}

void Queue::move(Parts::iterator part, Groups::iterator group, Pieces::iterator at) {
  Key key = at->first;
  insert(key, remove(part, group, at));
}

int64_t Queue::capped_size(const Piece& piece) { return std::min(piece.size(), kItemCap); }

void Queue::insert(Key key, Piece piece) {
  pieces_++;
  items_ += piece.size();
  capped_items_ += capped_size(piece);
  bytes_ += piece.job->size;
  auto part = parts_.try_emplace(generations_of(piece)).first;
  auto& [groups, heads] = part->second;
  auto group = groups.try_emplace(piece.job->group).first;
  Pieces& pieces = group->second;
  if (pieces.empty() || key < pieces.begin()->first) {
    if (!pieces.empty()) heads.erase(pieces.begin()->first);
    heads.emplace(key, &*group);
  }
  if (piece.job->admission_deadline != kNever)
    due_.insert({piece.job->admission_deadline, key, part->first, &group->first});
  pieces.emplace(key, std::move(piece));
}

void Queue::requeue(Piece piece, Time at) {
  Job& job = *piece.job;
  // The rest of a large job yields to jobs that have arrived in the meantime.
  job.order = std::max(job.order, at + std::min(job.window, kNever - at));
  push(std::move(piece));
}

void Queue::hold_flow(const Piece& piece) { piece.job->flow->hold(); }

GenerationSet Queue::generations_of(const Piece& piece) { return piece.job->flow->binding().generations(); }

}  // namespace jigsaw
