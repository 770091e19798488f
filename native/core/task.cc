#include "core/task.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cmath>

#include "core/engine.h"
#include "core/flow.h"
#include "core/front.h"

namespace jigsaw {
namespace {

// Maximum age of estimates of service times and throughput.
constexpr Time kEstimateMaxAge = 10 * kMillisecond;

// Backlog of a follower, as a fraction of the duration of a batch, from which the batch is not sent yet.
constexpr double kMinBacklogFraction = 0.9;

// Interval at which a non-empty queue is dispatched even if no event occurs.
constexpr Time kPollInterval = 20 * kMillisecond;

// Maximum time for which a task is blocked by its followers, so that two tasks cannot block each other forever.
constexpr Time kMaxBlockedTime = kSecond;

// Age after which sojourn times are ignored, because no job has left the task since.
constexpr Time kSojournMaxAge = kSecond;

// Sojourn times are clipped at this multiple of the expected one.
constexpr double kMaxSojournRatio = 4;

std::string rounded_ms(Time duration) { return std::to_string(int64_t(std::llround(milliseconds(duration)))); }

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

// Servers whose host is not known count as being on one host.
Independence independence(const Piece& piece, const Server& server) {
  auto found = Independence::kNode;
  for (const FailedServer& failed : piece.failures) {
    if (failed.server == &server) return Independence::kNone;
    if (failed.node == server.node) found = Independence::kServer;
  }
  return found;
}

}  // namespace

std::shared_ptr<Generation> Entry::newly_only(GenerationSet generations_of_request) const {
  GenerationSet left = generations_of_request & generations;
  if (left == generations_of_request || !std::has_single_bit(left)) return nullptr;
  return *std::find_if(named.begin(), named.end(), [&](const auto& it) { return it->bit == left; });
}

Task::Task(Engine& engine, Front& front, const TaskSpec& spec, size_t index)
    : engine_(engine),
      front_(front),
      spec_(spec),
      index_(index),
      metrics_(engine.metrics(), front.spec().graph, spec),
      route_path_(engine.settings().run_dir + "/routes/" + spec.route + ".json"),
      route_lock_(engine.settings().run_dir + "/tasks/" + spec.route),
      route_set_(now()) {
  // The controller locks this file before it removes a route, to be sure that no front uses the route.
  route_lock_.lock(FileLock::Kind::kShared);
  refresh_route();
  // A front without its route would let requests wait for workers in vain.
  if (!route_refusal_.empty()) throw std::runtime_error(route_refusal_);
  engine_.add(this);
}

Task::~Task() {
  set_route({});
  engine_.remove(this);
  // The front of the next generation may already use the same gauges.
  if (!engine_.find(front_.spec().graph, spec_.name)) metrics_.clear_gauges();
}

bool Task::refresh_route() {
  struct stat status;
  int64_t inode = 0, changed = 0, size = 0;
  if (stat(route_path_.c_str(), &status) == 0) {
    inode = int64_t(status.st_ino);
    changed = int64_t(status.st_mtim.tv_sec) * 1'000'000'000 + status.st_mtim.tv_nsec;
    size = status.st_size;
  }
  if (inode == route_inode_ && changed == route_changed_ns_ && size == route_size_) return false;
  route_inode_ = inode;
  route_changed_ns_ = changed;
  route_size_ = size;
  // Keep the entries of a deleted route: its front is about to be removed.
  if (inode == 0) return false;
  try {
    Route route = parse_route(read_file(route_path_));
    if (!engine_.highest_epoch().admit(route.epoch)) {
      route_refusal_ = "route " + spec_.route + " is refused: it is of controller epoch " +
                       std::to_string(route.epoch) + ", but a controller of epoch " +
                       std::to_string(engine_.highest_epoch().value()) + " has taken over";
      engine_.log(LogLevel::kError,
                  route_refusal_ + "; its previous " + std::to_string(entries_.size()) + " entries stay in use");
      return false;
    }
    route_refusal_.clear();
    set_route(std::move(route.entries));
    front_.route_replaced();
  } catch (const std::exception& error) {
    engine_.log(LogLevel::kError, "route " + spec_.route + " cannot be read; its previous " +
                                      std::to_string(entries_.size()) + " entries stay in use: " + error.what());
    return false;
  }
  return true;
}

void Task::set_route(std::vector<RouteEntry> routes) {
  std::vector<Entry> entries;
  for (RouteEntry& route : routes) {
    Entry entry;
    entry.worker = engine_.worker(route);
    entry.worker->service.profile(route.service_ms);
    // Items of varying shape are separate calls, which the worker's dynamic batcher may join.
    bool alone = spec_.mode == Mode::kItems || (spec_.one_by_one() && !route.pads);
    entry.limit = alone ? 1 : route.batch;
    entry.capacity = alone ? route.batch * route.slots : route.slots;
    auto variant = std::find(spec_.variants.begin(), spec_.variants.end(), route.variant);
    entry.variant = size_t(variant - spec_.variants.begin());
    entry.service = std::make_shared<ServiceMetrics>(engine_.metrics(), front_.spec().graph, spec_.name, route);
    if (!route.generations.empty()) entry.generations = 0;
    for (int64_t number : route.generations) {
      entry.named.push_back(engine_.generation(front_.spec().graph, number));
      entry.generations |= entry.named.back()->bit;
    }
    entry.route = std::move(route);
    entries.push_back(std::move(entry));
  }
  for (const Entry& entry : entries_) {
    std::erase(entry.worker->tasks, this);
    entry.worker->server->route_entries--;
  }
  entries_.swap(entries);
  for (const Entry& entry : entries_) {
    entry.worker->tasks.push_back(this);
    entry.worker->server->route_entries++;
  }
  total_capacity_ = 0;
  all_ = {};
  weighted_.clear();
  for (const Entry& entry : entries_) {
    total_capacity_ += entry.limit * entry.capacity;
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
  // With different shares, the counts start again at 0.
  std::erase_if(shares_, [&](const auto& item) {
    return item.second.empty() ||
           !std::ranges::equal(item.second, make_shares(item.first), [](const Share& a, const Share& b) {
             return a.variant == b.variant && a.share == b.share;
           });
  });
  if (all_.closed) queue_.regroup();
  estimated_ = 0;
  route_set_ = now();
}

Task::Shares Task::make_shares(GenerationSet generations) const {
  Shares shares;
  for (const Entry& entry : entries_) {
    if (entry.route.share <= 0 || !may_answer(entry, generations)) continue;
    bool known =
        std::any_of(shares.begin(), shares.end(), [&](const Share& s) { return s.variant == entry.route.variant; });
    if (!known) shares.push_back({entry.route.variant, entry.route.share, 0});
  }
  return shares;
}

Task::Shares& Task::shares_of(GenerationSet generations) {
  auto [found, inserted] = shares_.try_emplace(generations);
  if (inserted) found->second = make_shares(generations);
  return found->second;
}

bool Task::may_answer(const Entry& entry, GenerationSet generations) const {
  return (entry.generations & generations) && !(entry.route.closed && (all_.open & generations));
}

bool Task::covers(const Coverage& entries, GenerationSet generations) const {
  return (entries.open & generations) || ((entries.closed & generations) && !(all_.open & generations));
}

bool Task::is_usable(const Entry& entry, Time at) const {
  return !entry.worker->backing_off(at) && !entry.worker->server->condemned(at);
}

void Task::update_estimates(Time at) {
  if (estimated_ && at < estimated_ + kEstimateMaxAge) return;
  estimated_ = at;
  min_service_ns_ = max_service_ns_ = 0;
  items_per_ns_ = 0;
  usable_ = reachable_ = {};
  bool any_usable = false;
  for (const Entry& entry : entries_) {
    if (entry.worker->unreachable_since(at) == kNever) reachable_.add(entry);
    if (!is_usable(entry, at)) continue;
    usable_.add(entry);
    double least = entry.worker->service.mean(1);
    if (!any_usable || least < min_service_ns_) min_service_ns_ = least;
    max_service_ns_ = std::max(max_service_ns_, entry.worker->service.high(entry.limit));
    any_usable = true;
    double mean = entry.worker->service.mean(entry.limit);
    if (mean > 0) items_per_ns_ += double(entry.limit) * double(entry.capacity) / mean;
  }
}

double Task::longest_slo_ms() const {
  double longest = 0;
  for (const Entry& entry : entries_) longest = std::max(longest, entry.route.slo_ms);
  return longest;
}

Time Task::unreachable_since(GenerationSet generations, Time at) {
  if (covers(reachable_, generations)) return kNever;
  Time since = 0;
  bool any = false;
  for (const Entry& entry : entries_) {
    if (!may_answer(entry, generations)) continue;
    any = true;
    since = std::max(since, entry.worker->unreachable_since(at));
  }
  return any ? since : route_set_;
}

double Task::expected_wait(Time at) {
  update_estimates(at);
  return items_per_ns_ > 0 ? double(queue_.capped_items()) / items_per_ns_ : 0;
}

double Task::min_service_time(Time at) {
  update_estimates(at);
  return min_service_ns_;
}

bool Task::is_full(double batch, Time at) {
  if (total_capacity_ == 0 || queue_.capped_items() < total_capacity_) return false;
  update_estimates(at);
  return items_per_ns_ > 0 && double(queue_.capped_items()) / items_per_ns_ >= kMinBacklogFraction * batch;
}

double Task::max_batch_time(Time at) {
  update_estimates(at);
  return max_service_ns_;
}

double Task::sojourn_high(Time at) {
  // Forget old values: if they cause all jobs to be refused, no job would ever correct them.
  if (sojourn_mean_ > 0 && at > sojourn_updated_ + kSojournMaxAge) sojourn_mean_ = sojourn_deviation_ = 0;
  return sojourn_mean_ > 0 ? sojourn_mean_ + sojourn_deviation_ : expected_wait(at) + min_service_time(at);
}

void Task::record_sojourn(const Job& job, Time until) {
  constexpr double kSmoothing = 0.05;
  // Very large jobs yield to others, so their sojourn times are not typical.
  if (job.items > Queue::kItemCap) return;
  double value = double(until - std::min(until, job.arrival));
  double expected = sojourn_mean_ > 0 ? sojourn_mean_ : expected_wait(until) + min_service_time(until);
  // A host that is busy for a moment, or a first call, does not mean that the task is slow.
  if (expected > 0) value = std::min(value, kMaxSojournRatio * expected);
  sojourn_updated_ = until;
  if (sojourn_mean_ == 0) {
    sojourn_mean_ = value;
    return;
  }
  sojourn_deviation_ += kSmoothing * (std::abs(value - sojourn_mean_) - sojourn_deviation_);
  sojourn_mean_ += kSmoothing * (value - sojourn_mean_);
}

bool Task::serves(GenerationSet generation, Time at) {
  update_estimates(at);
  return usable_.open & generation;
}

std::shared_ptr<Generation> Task::drawn(GenerationSet generations, Time at) {
  std::vector<const Weighted*> able;
  double sum = 0;
  for (const Weighted& it : weighted_) {
    if (!(it.generation->bit & generations)) continue;
    bool serves = std::all_of(front_.tasks().begin(), front_.tasks().end(),
                              [&](const auto& task) { return task->serves(it.generation->bit, at); });
    if (!serves) continue;
    able.push_back(&it);
    sum += it.weight;
  }
  if (able.empty()) return nullptr;
  double left = std::uniform_real_distribution<double>(0, sum)(random_);
  for (const Weighted* it : able) {
    if (left < it->weight) return it->generation;
    left -= it->weight;
  }
  return able.back()->generation;
}

void Task::draw(Binding& binding, Time at) {
  while (!weighted_.empty() && !binding.only()) {
    std::shared_ptr<Generation> found = drawn(binding.generations(), at);
    if (!found) return;
    bool locked = false;
    // The controller holds the lock while it waits for the last requests of a generation.
    if (!found->requests->add(at, locked)) return;
    // As in `dispatch`: a route that changed before the lock was taken applies to this request.
    if (!refresh_route()) binding.narrow(found->bit, found, at);
    found->requests->remove(at);
  }
}

void Task::enqueue(Job& job, Work& work, Time at) {
  metrics_.requests.add(1);
  Piece piece(&job, 0, job.items);
  job.flow->hold();
  draw(job.flow->binding(), at);
  update_estimates(at);
  const FrontSpec& spec = front_.spec();
  if (queue_.pieces() >= spec.max_requests || queue_.bytes() + job.size > spec.max_bytes) {
    metrics_.refused[size_t(Reason::kFull)]->add(1);
    Flow* flow = job.flow;
    flow->fail({Blame::kWorker, "task " + spec_.name + ": its queue is full: " + std::to_string(queue_.pieces()) +
                                    " requests of " + std::to_string(queue_.bytes() >> 20) + " MiB wait"},
               work);
    flow->drop(work);
    return;
  }
  GenerationSet generations = job.flow->binding().generations();
  bool free = std::any_of(entries_.begin(), entries_.end(), [&](const Entry& entry) {
    return may_answer(entry, generations) && entry.worker->in_flight() < entry.capacity && is_usable(entry, at);
  });
  if (job.deadline != kNever && covers(usable_, generations)) {
    // A job that a free worker can run immediately is sent even if the estimate is too long: otherwise one slow batch
    // could end all service, because no later batch would correct the estimate.
    bool at_once = free && queue_.empty() && job.items <= entries_.front().limit && at < job.deadline;
    // A new job may wait up to a batch's duration for the batches in flight. A started job gets an optimistic estimate.
    double takes = job.started ? min_service_ns_ : 2 * max_service_ns_;
    if (items_per_ns_ > 0)
      takes += double(queue_.items_before(job.items) + (job.started ? 0 : job.items)) / items_per_ns_;
    if (!at_once && double(at) + takes > double(job.admission_deadline)) {
      refuse(piece, work, at);
      return;
    }
  }
  queue_.push(std::move(piece));
  work.dirty.push_back(this);
}

void Task::put_back(Piece piece) {
  piece.again = true;
  queue_.push(std::move(piece));
}

bool Task::is_late(const Job& job, Time at) {
  if (job.deadline == kNever) {
    // With `overload: queue` jobs wait for busy workers, but not for workers that are all unreachable.
    Time since = unreachable_since(job.flow->binding().generations(), at);
    return since != kNever && at >= std::max(job.arrival, since) + front_.slo();
  }
  // A job that has not waited yet gets a chance: otherwise one slow batch could end all service.
  bool waited = at > job.arrival + kMillisecond;
  return waited ? double(at) + min_service_ns_ > double(job.admission_deadline) : at >= job.deadline;
}

bool Task::drop_if_stale(Piece& piece, Work& work, Time at) {
  Flow* flow = piece.job->flow;
  if (flow->ended()) {
    flow->drop(work);
    return true;
  }
  if (flow->request()->cancelled()) {
    metrics_.refused[size_t(Reason::kCancelled)]->add(1);
    flow->fail({Blame::kCancelled, "task " + spec_.name + ": the request was cancelled"}, work);
    flow->drop(work);
    return true;
  }
  if (is_late(*piece.job, at)) {
    refuse(piece, work, at);
    return true;
  }
  return false;
}

void Task::refuse(Piece& piece, Work& work, Time at) {
  Flow* flow = piece.job->flow;
  // Its sojourn time would have been at least this long.
  if (at > piece.job->arrival) record_sojourn(*piece.job, at + Time(min_service_ns_));
  std::string message = "task " + spec_.name + ": ";
  Reason reason = Reason::kLate;
  const Binding& binding = flow->binding();
  GenerationSet generations = binding.generations();
  // A worker that failed is usable again for its next try, but no request waits for it because of load.
  if (covers(usable_, generations) && covers(reachable_, generations)) {
    message += "overloaded: the request waited for " + rounded_ms(at - flow->arrival()) +
               " ms and cannot be answered within " + flow->deadline_text();
  } else {
    reason = Reason::kWorker;
    auto count = std::count_if(entries_.begin(), entries_.end(),
                               [&](const Entry& entry) { return may_answer(entry, generations); });
    message += "none of its " + std::to_string(count) + " workers ";
    if (const std::shared_ptr<Generation>& only = binding.only())
      message += "of generation " + std::to_string(only->number) + ", to which the request is bound, ";
    message += "can be reached";
    if (!last_failure_.empty()) message += "; " + last_failure_;
  }
  metrics_.refused[size_t(reason)]->add(1);
  flow->trace(*piece.job, reason == Reason::kLate ? "late" : "worker", message, at, work);
  flow->fail({Blame::kWorker, std::move(message)}, work);
  flow->drop(work);
}

std::vector<const std::string*> Task::variants_by_share(Shares& shares, GenerationSet generations, Time at) {
  // A variant may be ahead of its share by at most one batch. While no worker of a variant is usable, the others divide
  // its share among them.
  struct Candidate {
    double ahead;
    const std::string* variant;
  };
  std::vector<Candidate> candidates;
  double share_sum = 0, taken_sum = 0;
  int64_t largest = 0;
  std::vector<std::pair<Share*, int64_t>> present;
  for (Share& share : shares) {
    int64_t batch = 0;
    for (const Entry& entry : entries_)
      if (entry.route.variant == share.variant && may_answer(entry, generations) && is_usable(entry, at))
        batch = std::max(batch, entry.limit);
    if (!batch) continue;
    present.emplace_back(&share, batch);
    share_sum += share.share;
    taken_sum += share.taken;
    largest = std::max(largest, batch);
  }
  if (present.size() != shares.size())
    for (Share& share : shares) share.taken = 0, taken_sum = 0;
  for (auto& [share, batch] : present) {
    double count = double(std::min(queue_.items(), batch));
    double ahead = share->taken + count - share->share / share_sum * (taken_sum + count);
    if (ahead <= double(largest)) candidates.push_back({ahead - count, &share->variant});
  }
  std::sort(candidates.begin(), candidates.end(),
            [](const Candidate& a, const Candidate& b) { return a.ahead < b.ahead; });
  std::vector<const std::string*> found;
  for (const Candidate& candidate : candidates) found.push_back(candidate.variant);
  return found;
}

int Task::choose_worker(const Piece& piece, GenerationSet generations, Time at) {
  // A host that hangs takes all of its workers with it, and a call is retried once only: prefer another host. If all
  // usable workers that may take the piece have failed on it, they are tried again.
  auto least = Independence::kNone;
  for (const Entry& entry : entries_)
    if (may_answer(entry, generations) && is_usable(entry, at))
      least = std::max(least, independence(piece, *entry.worker->server));
  Shares& shares = shares_of(generations);
  if (shares.size() < 2) return choose_among(piece, generations, at, nullptr, least);
  for (const std::string* variant : variants_by_share(shares, generations, at)) {
    int found = choose_among(piece, generations, at, variant, least);
    if (found >= 0) return found;
  }
  return -1;
}

int Task::choose_among(const Piece& piece, GenerationSet generations, Time at, const std::string* variant,
                       Independence least) {
  int best = -1;
  double least_cost = 0;
  size_t count = entries_.size();
  if (count == 0) return -1;
  size_t start = next_entry_++ % count;
  for (size_t i = 0; i < count; i++) {
    size_t index = start + i < count ? start + i : start + i - count;
    const Entry& entry = entries_[index];
    int64_t in_flight = entry.worker->in_flight();
    if (in_flight >= entry.capacity || !is_usable(entry, at)) continue;
    if (!may_answer(entry, generations) || (variant && entry.route.variant != *variant)) continue;
    if (independence(piece, *entry.worker->server) < least) continue;
    // Prefer fast workers, and among equally fast ones the least busy. The margin of 10 % lets the round-robin start
    // decide between workers that are nearly equal.
    double cost = (entry.worker->service.mean(1) + 1) * (1 + double(in_flight) / double(entry.capacity));
    if (best < 0 || cost < 0.9 * least_cost) {
      best = int(index);
      least_cost = cost;
    }
  }
  return best;
}

void Task::dispatch(Work& work, Time at) {
  if (queue_.empty()) {
    wake_ = kNever;
    return;
  }
  refresh_route();
  update_estimates(at);
  auto drop_stale = [&](Piece& piece) { return drop_if_stale(piece, work, at); };
  queue_.sweep(drop_stale, 64);
  queue_.sweep_by_deadline(drop_stale);
  std::vector<GenerationSet> waiting;  // Sets of generations for whose requests no worker is free.
  while (Piece* first = queue_.first(waiting)) {
    GenerationSet generations = first->job->flow->binding().generations();
    if (first->job->flow->ended() || is_late(*first->job, at)) {
      Piece piece = queue_.pop(generations);
      drop_if_stale(piece, work, at);
      continue;
    }
    blocked_ = front_.followers_full(index_, at);
    blocked_since_ = blocked_ ? std::min(blocked_since_, at) : kNever;
    if (blocked_ && at < blocked_since_ + kMaxBlockedTime) break;
    blocked_since_ = kNever;
    int index = choose_worker(*first, generations, at);
    if (index < 0) {
      if (queue_.uniform()) break;
      waiting.push_back(generations);
      continue;
    }
    std::shared_ptr<Worker> worker = entries_[size_t(index)].worker;
    std::shared_ptr<Generation> only = entries_[size_t(index)].newly_only(generations);
    bool locked = false;
    bool acquired = worker->acquire(at, locked);
    if (acquired && only && !only->requests->add(at, locked)) {
      worker->release(at);
      acquired = false;
    }
    if (!acquired) {
      // The controller holds the lock while it drains the model or the generation, which is about to leave the route.
      worker->back_off_briefly(at);
      estimated_ = 0;
      continue;
    }
    // A route that changed before the lock was taken applies to this call. After a later change, the controller waits
    // for this call, and for the requests of the generation.
    std::vector<Piece> pieces;
    if (locked && refresh_route()) {
      waiting.clear();
    } else {
      GenerationSet left = generations & entries_[size_t(index)].generations;
      pieces = queue_.take(generations, entries_[size_t(index)].limit, at, drop_stale,
                           [&](Piece& piece) { piece.job->flow->binding().narrow(left, only, at); });
    }
    if (only) only->requests->remove(at);
    if (pieces.empty()) {
      worker->release(at);
      continue;
    }
    Entry& entry = entries_[size_t(index)];
    int64_t items = 0;
    for (const Piece& piece : pieces) items += piece.size();
    for (Share& share : shares_of(generations))
      if (share.variant == entry.route.variant) share.taken += double(items);
    engine_.call(work, *this, entry, std::move(pieces), at);
  }
  front_.unblock_predecessors(index_, work, at);
  if (queue_.empty()) {
    wake_ = kNever;
    return;
  }
  wake_ = at + kPollInterval;
  Time deadline = queue_.first_deadline();
  if (deadline != kNever)
    wake_ = std::min(wake_, std::max(at + kMillisecond / 4, deadline - std::min(deadline, Time(min_service_ns_)) + 1));
  for (const Entry& entry : entries_)
    if (entry.worker->backing_off(at)) wake_ = std::min(wake_, entry.worker->backoff_until());
  engine_.wake_at(wake_);
}

bool Task::has_full_batch() const {
  int64_t largest = 1;
  for (const Entry& entry : entries_) largest = std::max(largest, entry.limit);
  return queue_.items() >= largest;
}

void Task::update_gauges(Time at) {
  int64_t slots = 0, busy = 0;
  for (const Entry& entry : entries_) {
    slots += entry.route.slots;
    busy += std::min(entry.worker->in_flight(), entry.capacity) * entry.route.slots / entry.capacity;
  }
  metrics_.slots.set(double(slots));
  metrics_.slots_busy.set(double(busy));
  metrics_.queue_length.set(double(queue_.pieces()));
  const Job* first = queue_.empty() ? nullptr : &queue_.head();
  metrics_.queue_age.set(first ? double(at - std::min(at, first->arrival)) / 1e9 : 0);
  metrics_.headroom.set(first && first->deadline != kNever ? (double(first->deadline) - double(at)) / 1e9 : 0);
}

}  // namespace jigsaw
