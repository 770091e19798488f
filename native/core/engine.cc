#include "core/engine.h"

#include <pthread.h>

#include <algorithm>
#include <new>

#include "core/flow.h"
#include "core/front.h"
#include "core/task.h"

namespace jigsaw {
namespace {

constexpr Time kGaugeInterval = 250 * kMillisecond;

}  // namespace

Engine::Engine(Host& host, Settings settings)
    : host_(host),
      settings_(std::move(settings)),
      metrics_(host),
      tracer_(settings_.run_dir, metrics_),
      highest_epoch_(settings_.run_dir + "/epoch"),
      kept_locks_([this](Time when) { wake_at(when); }),
      registry_(host, settings_.run_dir, kept_locks_),
      regions_(
          mutex_, settings_.region_prefix, [this](uint64_t number) { return registrations_.still_needed(number); },
          [this](uint64_t number, Region region) { registrations_.region_made(number, std::move(region)); }),
      pool_(regions_, settings_.secret),
      registrations_(host, mutex_, loop_, pending_, pool_, regions_, !settings_.region_prefix.empty(),
                     settings_.secret),
      calls_(pending_, pool_, registrations_),
      failover_(settings_.run_dir, calls_, pool_, registrations_),
      driver_(*this, loop_, pending_, pool_, calls_, failover_) {
  loop_.start([this] { loop(); });
}

Engine::~Engine() {
  loop_.stop();
  regions_.stop();
  // The connection of an unanswered registration refers to its worker, which keeps the server and the connection alive:
  // break this cycle.
  for (Connection* connection : pending_.take_all())
    std::shared_ptr<Worker> worker = std::move(connection->call.worker);
}

GraphMetrics& Engine::graph_metrics(const std::string& graph) {
  auto& found = graphs_[graph];
  if (!found) found = std::make_unique<GraphMetrics>(metrics_, graph);
  return *found;
}

void Engine::drop_unused() {
  for (const std::shared_ptr<Server>& server : registry_.drop_unused()) pool_.retire_idle(*server);
}

void Engine::run(Work& work) {
  while (!work.empty()) {
    for (auto& [level, text] : std::exchange(work.logs, {})) host_.log(level, text);
    for (const Hop& hop : std::exchange(work.hops, {})) tracer_.write(hop);
    if (!work.answers.empty()) {
      std::vector<Flow*> answers = std::exchange(work.answers, {});
      for (Flow* flow : answers) flow->respond();
      std::lock_guard lock(mutex_);
      for (Flow* flow : answers) flow->drop(work);
    }
    if (!work.releases.empty()) {
      std::vector<Flow*> releases = std::exchange(work.releases, {});
      for (Flow* flow : releases) {
        Front& front = flow->front();
        Request* request = flow->request();
        delete flow;
        request->release();
        std::lock_guard lock(mutex_);
        front.released();
      }
    }
    for (Connection* connection : std::exchange(work.sends, {})) driver_.send(*connection, work);
    for (Job* job : std::exchange(work.joins, {})) {
      Flow* flow = job->flow;
      flow->join(*job);
      std::lock_guard lock(mutex_);
      try {
        flow->joined(*job, work);
      } catch (const std::bad_alloc&) {
        flow->fail(no_memory(), work);
      }
      flow->drop(work);
      work.dispatch(now());
    }
  }
}

void Engine::loop() {
  pthread_setname_np(pthread_self(), "jigsaw");
  bool caught_up = true;
  while (!loop_.stopping()) {
    Work work;
    int timeout_ms = -1;
    {
      std::lock_guard lock(mutex_);
      Time at = now();
      // After a stop of this process, the answers that have arrived meanwhile are read before any call is judged.
      caught_up = pending_.running_time().step(at) || !caught_up;
      if (caught_up && at >= std::min({loop_.wake_time(), gauges_due_, pending_.first_deadline(at)})) tick(at, work);
      Time next = caught_up ? std::min({loop_.wake_time(), gauges_due_, pending_.first_deadline(at)}) : at;
      if (next != kNever) timeout_ms = next <= at ? 0 : int(std::min<Time>((next - at) / kMillisecond + 1, 1000));
    }
    if (work.empty())
      loop_.wait(timeout_ms, [this](uint64_t number) { on_event(number); });
    else
      run(work);
  }
}

void Engine::on_event(uint64_t number) {
  Connection* connection = nullptr;
  Connection::State state;
  {
    std::lock_guard lock(mutex_);
    connection = pending_.find(number);
    if (!connection) return;
    state = connection->state;
  }
  if (state == Connection::State::kRegistering)
    registrations_.on_event(*connection);
  else if (state == Connection::State::kWaiting)
    driver_.on_event(*connection);
}

void Engine::tick(Time at, Work& work) {
  while (Connection* connection = pending_.take_expired(at)) {
    if (connection->state == Connection::State::kRegistering)
      registrations_.expire(*connection);
    else
      failover_.expire(*connection, work);
  }
  Time next = kNever;
  for (Task* task : registry_.tasks()) {
    if (task->wake_time() <= at) task->dispatch(work, at);
    next = std::min(next, task->wake_time());
  }
  loop_.set_wake_time(std::min(next, kept_locks_.release(at)));
  if (at >= gauges_due_) {
    gauges_due_ = at + kGaugeInterval;
    tracer_.refresh_share();
    for (Task* task : registry_.tasks()) {
      // Idle tasks, too, so that the epoch of a new controller is known soon.
      task->refresh_route();
      task->update_gauges(at);
    }
  }
  work.dispatch(at);
}

}  // namespace jigsaw
