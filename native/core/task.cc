#include "core/task.h"

#include <algorithm>
#include <cmath>

#include "core/engine.h"
#include "core/flow.h"
#include "core/front.h"

namespace jigsaw {
namespace {

// Backlog of a follower, as a fraction of the duration of a batch, from which the batch is not sent yet.
constexpr double kMinBacklogFraction = 0.9;

// Maximum time that a batch waits for more requests, as a fraction of the time until another slot would be free. A wait
// costs each request of the batch its length, and saves each that joins the rest of that time. With as many of both,
// one half is the limit at which it pays.
constexpr double kMaxDelayFraction = 0.5;

// Maximum time before the expected end of a call at which the next one is sent early. The pause between an answer and
// the next call takes 0.1 to 1 ms, and calls may take a little less time than expected.
constexpr Time kMaxEarly = 5 * kMillisecond;

// Maximum of that time as a fraction of the expected duration of the call. A call that exceeds its expected duration by
// more than this, or by more than kPollInterval, is not expected to end soon.
constexpr double kMaxEarlyFraction = 0.25;

// Minimum expected duration of a call before whose end the next one is sent early. For a shorter one the timer would
// take more processor time than is saved.
constexpr Time kMinBeforeEarly = kMillisecond;

// Interval at which a non-empty queue is dispatched even if no event occurs.
constexpr Time kPollInterval = 20 * kMillisecond;

// Maximum time for which a task is blocked by its followers, so that two tasks cannot block each other forever.
constexpr Time kMaxBlockedTime = kSecond;

std::string rounded_ms(Time duration) { return std::to_string(int64_t(std::llround(milliseconds(duration)))); }

// Returns `kMaxEarlyFraction` of the expected duration of a call.
Time early_fraction(const Call& call) { return Time(kMaxEarlyFraction * call.worker->service.mean(call.items)); }

// Time from which on a call is expected to end soon.
Time ends_soon_from(const Call& call) { return call.expected_end - std::min(kMaxEarly, early_fraction(call)); }

// Time until which a call is expected to end soon.
Time ends_soon_until(const Call& call) { return call.expected_end + std::min(kPollInterval, early_fraction(call)); }

// Acquires a worker for a call, and the use of a generation unless it is nullptr. Returns false if the file of one of
// them cannot be locked. Sets `locked` to true if this locked one of their files.
bool acquire(Worker& worker, Generation* generation, Time at, bool& locked) {
  if (!worker.acquire(at, locked)) return false;
  if (!generation || generation->requests->add(at, locked)) return true;
  worker.release(at);
  return false;
}

}  // namespace

Task::Task(Engine& engine, Front& front, const TaskSpec& spec, size_t index)
    : engine_(engine),
      front_(front),
      spec_(spec),
      index_(index),
      metrics_(engine.metrics(), front.spec().graph, spec),
      route_(engine, *this),
      estimates_(route_),
      balancer_(route_) {
  refresh_route();
  // A front without its route would let requests wait for workers in vain.
  if (!route_.refusal().empty()) throw std::runtime_error(route_.refusal());
  engine_.registry().add(this);
}

Task::~Task() {
  engine_.registry().remove(this);
  // The front of the next generation may already use the same gauges.
  if (!engine_.registry().find(front_.spec().graph, spec_.name)) metrics_.clear_gauges();
}

bool Task::refresh_route() {
  if (!route_.refresh()) return false;
  balancer_.route_replaced();
  if (route_.has_closed()) queue_.regroup();
  estimates_.expire();
  front_.route_replaced();
  return true;
}

Time Task::unreachable_since(GenerationSet generations, Time at) {
  estimates_.update(at);
  if (route_.covers(estimates_.reachable(), generations)) return kNever;
  Time since = 0;
  bool any = false;
  for (const Entry& entry : route_.entries()) {
    if (!route_.may_answer(entry, generations)) continue;
    any = true;
    since = std::max(since, entry.worker->unreachable_since(at));
  }
  return any ? since : route_.replaced();
}

double Task::expected_wait(Time at) {
  estimates_.update(at);
  return estimates_.drain_ns(queue_.capped_items() + early_items_);
}

double Task::min_service_time(Time at) {
  estimates_.update(at);
  return estimates_.min_service_ns();
}

bool Task::is_full(double batch, Time at) {
  if (route_.capacity() == 0 || queue_.capped_items() < route_.capacity()) return false;
  estimates_.update(at);
  double drain = estimates_.drain_ns(queue_.capped_items());
  return drain > 0 && drain >= kMinBacklogFraction * batch;
}

double Task::max_batch_time(Time at) {
  estimates_.update(at);
  return estimates_.max_service_ns();
}

double Task::sojourn_high(Time at) {
  double high = sojourns_.high(at);
  return high > 0 ? high : expected_wait(at) + min_service_time(at);
}

void Task::record_sojourn(const Job& job, Time until) {
  // Very large jobs yield to others, so their sojourn times are not typical.
  if (job.items > Queue::kItemCap) return;
  double sojourn = double(until - std::min(until, job.arrival));
  sojourns_.record(sojourn, expected_wait(until) + min_service_time(until), until);
}

GenerationSet Task::served(Time at) {
  estimates_.update(at);
  return estimates_.usable().open;
}

void Task::note_failure(std::string reason) {
  last_failure_ = std::move(reason);
  estimates_.expire();
}

std::shared_ptr<Generation> Task::drawn(GenerationSet generations) {
  std::vector<const Weighted*> able;
  double sum = 0;
  for (const Weighted& it : route_.weighted()) {
    if (!(it.generation->bit & generations)) continue;
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

void Task::draw(Flow& flow, Time at) {
  Binding& binding = flow.binding();
  while (!route_.weighted().empty() && !binding.only()) {
    std::shared_ptr<Generation> found = drawn(flow.served(at));
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
  delay_.arrived(at);
  Piece piece(&job, 0, job.items);
  job.flow->hold();
  draw(*job.flow, at);
  estimates_.update(at);
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
  if (job.deadline != kNever && route_.covers(estimates_.usable(), generations)) {
    // A job that a free worker can run immediately is sent even if the estimate is too long: otherwise one slow batch
    // could end all service, because no later batch would correct the estimate.
    bool at_once = queue_.empty() && job.items <= route_.entries().front().limit && at < job.deadline &&
                   balancer_.finds_free(generations, at);
    // A new job may wait up to a batch's duration for the batches in flight. A started job gets an optimistic estimate.
    double takes = job.started ? estimates_.min_service_ns() : 2 * estimates_.max_service_ns();
    takes += estimates_.drain_ns(queue_.items_before(job.items) + early_items_ + (job.started ? 0 : job.items));
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
  return waited ? double(at) + estimates_.min_service_ns() > double(job.admission_deadline) : at >= job.deadline;
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
  if (at > piece.job->arrival) record_sojourn(*piece.job, at + Time(estimates_.min_service_ns()));
  std::string message = "task " + spec_.name + ": ";
  Reason reason = Reason::kLate;
  const Binding& binding = flow->binding();
  GenerationSet generations = binding.generations();
  // A worker that failed is usable again for its next try, but no request waits for it because of load.
  if (route_.covers(estimates_.usable(), generations) && route_.covers(estimates_.reachable(), generations)) {
    const Task* unreachable = flow->unreachable_task(at);
    if (!piece.failures.empty() || unreachable) reason = Reason::kWorker;
    if (!piece.failures.empty())
      message += "worker " + piece.failures.back().name + " failed on the request: the request waited for ";
    else if (unreachable)
      message += "no worker of task " + unreachable->spec().name + " can be reached: the request waited for ";
    else
      message += "overloaded: the request waited for ";
    message += rounded_ms(at - flow->arrival()) + " ms and cannot be answered within " + flow->deadline_text();
  } else {
    reason = Reason::kWorker;
    auto count = std::count_if(route_.entries().begin(), route_.entries().end(),
                               [&](const Entry& entry) { return route_.may_answer(entry, generations); });
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

void Task::dispatch(Work& work, Time at) {
  if (queue_.empty()) {
    delay_.reset();
    schedule_wake(at);
    return;
  }
  refresh_route();
  estimates_.update(at);
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
    GenerationSet preferred = first->job->flow->preferred(at);
    const Entry* entry = balancer_.choose(*first, preferred, queue_.items(), route_.free(), at);
    Time slot_at = at;
    if (!entry) {
      delay_.reset();
      entry = choose_busy(*first, preferred, at, slot_at);
    }
    if (!entry || waits_for_more(*first, *entry, preferred, at)) {
      if (queue_.uniform()) break;
      waiting.push_back(generations);
      continue;
    }
    std::shared_ptr<Worker> worker = entry->worker;
    std::shared_ptr<Generation> only = entry->newly_only(generations);
    bool locked = false;
    if (!acquire(*worker, only.get(), at, locked)) {
      // The controller holds the lock while it drains the model or the generation, which is about to leave the route.
      worker->back_off_briefly(at);
      estimates_.expire();
      continue;
    }
    // A route that changed before the lock was taken applies to this call. After a later change, the controller waits
    // for this call, and for the requests of the generation.
    std::vector<Piece> pieces;
    if (locked && refresh_route()) {
      waiting.clear();
    } else {
      GenerationSet left = generations & entry->generations;
      // A request of the same generations may need another task, for which this entry's generations lack a worker.
      auto joins = [&](const Piece& piece) { return route_.may_answer(*entry, piece.job->flow->preferred(at)); };
      auto bind = [&](Piece& piece) { piece.job->flow->binding().narrow(left, only, at); };
      pieces = queue_.take(generations, entry->limit, at, drop_stale, joins, bind);
    }
    if (only) only->requests->remove(at);
    if (pieces.empty()) {
      worker->release(at);
      continue;
    }
    int64_t items = 0;
    for (const Piece& piece : pieces) items += piece.size();
    delay_.reset();
    balancer_.count(preferred, entry->route.variant, items);
    engine_.calls().begin(work, *this, *entry, std::move(pieces), at, slot_at);
  }
  front_.unblock_predecessors(index_, work, at);
  schedule_wake(at);
}

void Task::expect_end(const Call& call) { expected_ends_.emplace(call.expected_end, &call); }

void Task::forget_end(const Call& call) { expected_ends_.erase({call.expected_end, &call}); }

void Task::end_expectation(const Call& call) {
  forget_end(call);
  delay_.call_ended();
}

Time Task::expected_end(Time from) const {
  auto found = expected_ends_.lower_bound({from, nullptr});
  return found == expected_ends_.end() ? kNever : found->first;
}

bool Task::may_precede_early_call(const Call& call, Time at) const {
  const Worker& worker = *call.worker;
  // Tasks that share a worker take turns, one call each.
  if (worker.uses().size() != 1 || worker.uses()[0].task != this) return false;
  const Entry& entry = route_.entries()[worker.uses()[0].entry];
  if (worker.in_flight() != entry.capacity || worker.no_early_until > at) return false;
  // If calls of single items share the slots, the worker forms batches of them, and one that comes early would be
  // alone.
  if (entry.capacity != entry.route.slots) return false;
  // The first call of a batch size may take much longer than expected.
  return worker.has_answered(call.items) && worker.service.mean(call.items) >= kMinBeforeEarly;
}

const Entry* Task::choose_busy(const Piece& first, GenerationSet generations, Time at, Time& slot_at) {
  // A worker that fails may have begun an early call or not, so a call that must not be repeated is never early.
  if (first.alone || !spec_.retry || !has_full_batch()) return nullptr;
  const Job& job = *first.job;
  std::vector<const Call*> before;
  FreeEntries soon_free;
  for (auto it = expected_ends_.lower_bound({at - std::min(at, kPollInterval), nullptr}); it != expected_ends_.end();
       it++) {
    const Call& call = *it->second;
    if (call.expected_end > at + kMaxEarly) break;
    Time slot = std::max(at, call.expected_end);
    if (job.deadline != kNever && double(slot) + estimates_.min_service_ns() > double(job.admission_deadline)) break;
    if (!may_precede_early_call(call, at) || at < ends_soon_from(call) || at > ends_soon_until(call)) continue;
    if (before.empty()) soon_free.reset(route_.entries().size());
    before.push_back(&call);
    soon_free.set(call.worker->uses()[0].entry, true);
  }
  if (before.empty()) return nullptr;
  const Entry* entry = balancer_.choose(first, generations, queue_.items(), soon_free, at);
  if (!entry || !queue_.fills(job.flow->binding().generations(), entry->limit)) return nullptr;
  auto found =
      std::find_if(before.begin(), before.end(), [&](const Call* call) { return call->worker == entry->worker; });
  slot_at = std::max(at, (*found)->expected_end);
  return entry;
}

Time Task::next_early_call(Time at) const {
  Time next = kNever;
  if (blocked_ || !spec_.retry || !has_full_batch()) return next;
  // After kPollInterval, the task looks again anyway.
  for (auto it = expected_ends_.lower_bound({at, nullptr}); it != expected_ends_.end(); it++) {
    const Call& call = *it->second;
    if (call.expected_end > std::min(next, at + kPollInterval) + kMaxEarly) break;
    if (may_precede_early_call(call, at) && ends_soon_from(call) > at) next = std::min(next, ends_soon_from(call));
  }
  return next;
}

bool Task::has_other_slot(const Entry& entry, GenerationSet generations, Time at) const {
  if (entry.worker->in_flight() + 1 < entry.capacity) return true;
  const std::vector<Entry>& entries = route_.entries();
  for (size_t i = route_.free().next(0); i < entries.size(); i = route_.free().next(i + 1))
    if (&entries[i] != &entry && entries[i].is_usable(at) && route_.may_answer(entries[i], generations)) return true;
  return false;
}

bool Task::waits_for_more(const Piece& first, const Entry& entry, GenerationSet generations, Time at) {
  int64_t items = queue_.items();
  // A task that shares the worker would take the slot meanwhile, again and again.
  bool wanted = std::any_of(entry.worker->uses().begin(), entry.worker->uses().end(),
                            [this](const Use& use) { return use.task != this && use.task->has_waiting(); });
  if (first.alone || items >= entry.limit || wanted || has_other_slot(entry, generations, at)) {
    delay_.reset();
    return false;
  }
  const ServiceTimes& service = entry.worker->service;
  double share = double(entry.limit) / double(route_.capacity());
  // No request waits for longer than a batch that would be ahead of it, and each keeps twice the time that it needs.
  Time deadline = queue_.first_deadline(), needs = Time(2 * service.high(items));
  Time latest =
      std::min(deadline - std::min(deadline, needs), first.job->arrival + Time(share * service.mean(entry.limit)));
  Time longest = Time(kMaxDelayFraction * share * service.mean(items));
  return delay_.waits(longest, latest, front_.next_results(index_, at - longest), at);
}

void Task::schedule_wake(Time at) {
  if (queue_.empty()) {
    wake_ = kNever;
    return;
  }
  wake_ = at + kPollInterval;
  Time deadline = queue_.first_deadline(), shortest = Time(estimates_.min_service_ns());
  if (deadline != kNever)
    wake_ = std::min(wake_, std::max(at + kMillisecond / 4, deadline - std::min(deadline, shortest) + 1));
  wake_ = std::min({wake_, delay_.end(), next_early_call(at)});
  // A worker without a free slot causes a dispatch when it gets one.
  const std::vector<Entry>& entries = route_.entries();
  for (size_t i = route_.free().next(0); i < entries.size(); i = route_.free().next(i + 1))
    if (entries[i].worker->backing_off(at)) wake_ = std::min(wake_, entries[i].worker->backoff_until());
  engine_.wake_at(wake_);
}

void Task::update_gauges(Time at) {
  int64_t slots = 0, busy = 0;
  for (const Entry& entry : route_.entries()) {
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
