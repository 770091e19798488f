#include "core/task_route.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>

#include "core/engine.h"
#include "core/front.h"
#include "core/task.h"

namespace jigsaw {
namespace {

std::string read_file(const std::string& path) {
  int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) throw FormatError("cannot open " + path);
  std::string text;
  char buffer[16384];
  ssize_t n;
  while ((n = read(file, buffer, sizeof buffer)) > 0) text.append(buffer, size_t(n));
  close(file);
  if (n < 0) throw FormatError("cannot read " + path);
  return text;
}

}  // namespace

std::shared_ptr<Generation> Entry::newly_only(GenerationSet generations_of_request) const {
  GenerationSet left = generations_of_request & generations;
  if (left == generations_of_request || !std::has_single_bit(left)) return nullptr;
  return *std::find_if(named.begin(), named.end(), [&](const auto& it) { return it->bit == left; });
}

Time Entry::call_timeout(int64_t items, double first_ms) const {
  double limit_ms = first_ms;
  const Durations& deadlines = route.deadline_ms;
  if (!deadlines.empty()) {
    auto found = std::find_if(deadlines.begin(), deadlines.end(), [&](const auto& row) { return row.first >= items; });
    double of_size_ms = found != deadlines.end()
                            ? found->second
                            : deadlines.back().second * double(items) / double(deadlines.back().first);
    limit_ms = worker->has_answered(items) ? of_size_ms : std::max(of_size_ms, limit_ms);
  }
  return Time(limit_ms * 1e6);
}

TaskRoute::TaskRoute(Engine& engine, Task& task)
    : engine_(engine),
      task_(task),
      path_(engine.settings().run_dir + "/routes/" + task.spec().route + ".json"),
      lock_(engine.settings().run_dir + "/tasks/" + task.spec().route),
      replaced_(now()) {
  // The controller locks this file before it removes a route, to be sure that no front uses the route.
  lock_.lock(FileLock::Kind::kShared);
}

TaskRoute::~TaskRoute() { set({}); }

bool TaskRoute::refresh() {
  struct stat status;
  int64_t inode = 0, changed = 0, size = 0;
  if (stat(path_.c_str(), &status) == 0) {
    inode = int64_t(status.st_ino);
    changed = int64_t(status.st_mtim.tv_sec) * 1'000'000'000 + status.st_mtim.tv_nsec;
    size = status.st_size;
  }
  if (inode == inode_ && changed == changed_ns_ && size == size_) return false;
  inode_ = inode;
  changed_ns_ = changed;
  size_ = size;
  // Keep the entries of a deleted route: its front is about to be removed.
  if (inode == 0) return false;
  const std::string& name = task_.spec().route;
  try {
    Route route = parse_route(read_file(path_));
    if (!engine_.highest_epoch().admit(route.epoch)) {
      refusal_ = "route " + name + " is refused: it is of controller epoch " + std::to_string(route.epoch) +
                 ", but a controller of epoch " + std::to_string(engine_.highest_epoch().value()) + " has taken over";
      engine_.log(LogLevel::kError,
                  refusal_ + "; its previous " + std::to_string(entries_.size()) + " entries stay in use");
      return false;
    }
    refusal_.clear();
    set(std::move(route.entries));
  } catch (const std::exception& error) {
    engine_.log(LogLevel::kError, "route " + name + " cannot be read; its previous " + std::to_string(entries_.size()) +
                                      " entries stay in use: " + error.what());
    return false;
  }
  return true;
}

Entry TaskRoute::entry(RouteEntry route) {
  const TaskSpec& spec = task_.spec();
  const std::string& graph = task_.front().spec().graph;
  Entry entry;
  entry.worker = engine_.registry().worker(route);
  entry.worker->service.profile(route.service_ms);
  // Items of varying shape are separate calls, which the worker's dynamic batcher may join.
  bool alone = spec.mode == Mode::kItems || (spec.one_by_one() && !route.pads);
  entry.limit = alone ? 1 : route.batch;
  entry.capacity = alone ? route.batch * route.slots : route.slots;
  auto variant = std::find(spec.variants.begin(), spec.variants.end(), route.variant);
  entry.variant = size_t(variant - spec.variants.begin());
  entry.service = std::make_shared<ServiceMetrics>(engine_.metrics(), graph, spec.name, route);
  if (!route.generations.empty()) entry.generations = 0;
  for (int64_t number : route.generations) {
    entry.named.push_back(engine_.registry().generation(graph, number));
    entry.generations |= entry.named.back()->bit;
  }
  entry.route = std::move(route);
  return entry;
}

void TaskRoute::set(std::vector<RouteEntry> routes) {
  std::vector<Entry> entries;
  for (RouteEntry& route : routes) entries.push_back(entry(std::move(route)));
  for (const Entry& entry : entries_) {
    entry.worker->remove(task_);
    entry.worker->server->route_entries--;
  }
  entries_.swap(entries);
  free_.reset(entries_.size());
  for (size_t i = 0; i < entries_.size(); i++) {
    entries_[i].worker->add({&task_, &free_, i, entries_[i].capacity});
    entries_[i].worker->server->route_entries++;
  }
  capacity_ = 0;
  largest_batch_ = 1;
  all_ = {};
  weighted_.clear();
  for (const Entry& entry : entries_) {
    capacity_ += entry.limit * entry.capacity;
    largest_batch_ = std::max(largest_batch_, entry.limit);
    all_.add(entry);
    if (entry.route.closed) continue;
    for (size_t i = 0; i < entry.route.weights.size(); i++) {
      bool known = std::any_of(weighted_.begin(), weighted_.end(),
                               [&](const Weighted& it) { return it.generation == entry.named[i]; });
      if (!known) weighted_.push_back({entry.named[i], entry.route.weights[i]});
    }
  }
  // The old entries are still alive here, so connections to servers that have left the route can be closed.
  engine_.drop_unused();
  replaced_ = now();
}

double TaskRoute::longest_slo_ms() const {
  double longest = 0;
  for (const Entry& entry : entries_) longest = std::max(longest, entry.route.slo_ms);
  return longest;
}

}  // namespace jigsaw
