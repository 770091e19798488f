#include "core/generation.h"

namespace jigsaw {

void Binding::narrow(GenerationSet generations, const std::shared_ptr<Generation>& only, Time at) {
  if (generations == generations_) return;
  generations_ = generations;
  if (!only) return;
  bool locked = false;
  only->requests->add(at, locked);
  only_ = only;
}

void Binding::end_flow() {
  if (--flows_ == 0 && only_) only_->requests->remove(now());
}

}  // namespace jigsaw
