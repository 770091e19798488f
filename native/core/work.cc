#include "core/work.h"

#include <algorithm>

#include "core/task.h"

namespace jigsaw {

void Work::dispatch(Time at) {
  while (!dirty.empty()) {
    std::vector<Task*> tasks = std::exchange(dirty, {});
    std::sort(tasks.begin(), tasks.end());
    tasks.erase(std::unique(tasks.begin(), tasks.end()), tasks.end());
    // If tasks share a worker, the one with the earliest deadline is first.
    std::sort(tasks.begin(), tasks.end(), [](Task* a, Task* b) { return a->head_order() < b->head_order(); });
    for (Task* task : tasks) task->dispatch(*this, at);
  }
}

}  // namespace jigsaw
