#include "core/engine.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <new>
#include <system_error>

#include "core/front.h"
#include "core/json.h"

namespace jigsaw {
namespace {

constexpr Time kGaugeInterval = 250 * kMillisecond;

// Time for which a server that refused shared memory receives large tensors over its socket.
constexpr Time kSharedMemoryBackoff = 60 * kSecond;

// Maximum number of calls in the trace of a request at one task; a request of many rows makes as many calls.
constexpr size_t kMaxTracedCalls = 256;

// Maximum size of a region. Larger calls go over the socket.
constexpr size_t kMaxRegionBytes = size_t{1} << 30;

// Meaning of an error answer for the worker.
enum class ErrorKind : uint8_t {
  kRejected,   // The model rejected these items, or failed on them.
  kNotRun,     // The server did not execute the call.
  kLost,       // A proxy lost the server while it may have executed the call.
  kUnhealthy,  // The model's process died or hangs. Its next answer may belong to another call.
};

// Classifies an error by how the message begins, because a model's message may quote any text of a client, even a
// message of the server.
ErrorKind classify_error(int status, std::string_view reason) {
  constexpr std::string_view kModelError = "Failed to process the request(s) for model instance '",
                             kSeparator = "', message: ";
  std::string_view message = reason;
  if (size_t separator = message.find(kSeparator); message.starts_with(kModelError) && separator != message.npos)
    message.remove_prefix(separator + kSeparator.size());
  if (message.starts_with("Stub process")) return ErrorKind::kUnhealthy;
  if (status == 404 || status == 503 || reason.starts_with("Request for unknown model") ||
      reason.starts_with("Unable to find shared memory region"))
    return ErrorKind::kNotRun;
  if (status == 502 || status == 504) return ErrorKind::kLost;
  return ErrorKind::kRejected;
}

}  // namespace

Engine::Engine(Host& host, Settings settings)
    : host_(host),
      settings_(std::move(settings)),
      metrics_(host),
      tracer_(settings_.run_dir, metrics_),
      highest_epoch_(settings_.run_dir + "/epoch"),
      // A random start that is positive as an INT64 and leaves room to count.
      next_number_((random_number() >> 16) + 1) {
  epoll_ = epoll_create1(EPOLL_CLOEXEC);
  event_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (epoll_ < 0 || event_ < 0)
    throw std::system_error(errno, std::generic_category(), "cannot create the event loop of the backend");
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = 0;
  epoll_ctl(epoll_, EPOLL_CTL_ADD, event_, &event);
  loop_thread_ = std::thread([this] { loop(); });
  region_thread_ = std::thread([this] { region_loop(); });
}

Engine::~Engine() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  uint64_t one = 1;
  [[maybe_unused]] ssize_t n = write(event_, &one, sizeof one);
  region_work_.notify_one();
  loop_thread_.join();
  region_thread_.join();
  // The connection of an unanswered registration refers to its worker, which keeps the server and the connection alive:
  // break this cycle.
  for (auto& [number, connection] : std::exchange(calls_, {}))
    std::shared_ptr<Worker> worker = std::move(connection->call.worker);
  close(event_);
  close(epoll_);
}

void Engine::log(LogLevel level, const std::string& text) { host_.log(level, text); }

GraphMetrics& Engine::graph_metrics(const std::string& graph) {
  auto& found = graphs_[graph];
  if (!found) found = std::make_unique<GraphMetrics>(metrics_, graph);
  return *found;
}

void Engine::add(Task* task) {
  tasks_.insert(task);
  tasks_of_[task->front().spec().graph].push_back(task);
}

void Engine::remove(Task* task) {
  tasks_.erase(task);
  std::erase(tasks_of_[task->front().spec().graph], task);
}

const std::vector<Task*>& Engine::tasks_of(const std::string& graph) { return tasks_of_[graph]; }

Task* Engine::find(const std::string& graph, const std::string& task) {
  const std::vector<Task*>& tasks = tasks_of(graph);
  auto found = std::find_if(tasks.rbegin(), tasks.rend(), [&](Task* other) { return other->spec().name == task; });
  return found == tasks.rend() ? nullptr : *found;
}

std::shared_ptr<Worker> Engine::worker(const RouteEntry& entry) {
  std::shared_ptr<Server> server = servers_[entry.worker].lock();
  if (!server || server->remote != entry.remote) {
    std::string address = settings_.run_dir + "/workers/" + entry.worker + ".sock";
    server = std::make_shared<Server>(entry.worker, std::move(address), entry.remote);
    servers_[entry.worker] = server;
  }
  server->node = entry.node;
  auto& known = workers_[{entry.worker, entry.model}];
  std::shared_ptr<Worker> worker = known.lock();
  if (!worker || worker->server != server) {
    worker = std::make_shared<Worker>(server, entry.model, kept_locks_,
                                      settings_.run_dir + "/slots/" + entry.worker + "/" + entry.model);
    known = worker;
  }
  return worker;
}

std::shared_ptr<Generation> Engine::generation(const std::string& graph, int64_t number) {
  auto& known = generations_[{graph, number}];
  std::shared_ptr<Generation> generation = known.lock();
  if (!generation) {
    std::string path = settings_.run_dir + "/generations/" + graph + "." + std::to_string(number);
    GenerationSet bit = GenerationSet{1} << (generations_named_[graph]++ % kMaxGenerations);
    generation = std::make_shared<Generation>(host_, graph, number, bit, kept_locks_, std::move(path));
    known = generation;
  }
  return generation;
}

void Engine::drop_unused() {
  for (auto at = servers_.begin(); at != servers_.end();) {
    std::shared_ptr<Server> server = at->second.lock();
    if (server && server->route_entries == 0)
      // Close them, because a server with open connections stops slowly.
      for (Connection* connection : server->idle) discard(connection->retire(settings_.secret));
    at = server ? std::next(at) : servers_.erase(at);
  }
  std::erase_if(workers_, [](const auto& item) { return item.second.expired(); });
  std::erase_if(generations_, [](const auto& item) { return item.second.expired(); });
}

void Engine::wake_at(Time when) {
  if (when >= wake_) return;
  wake_ = when;
  if (std::this_thread::get_id() == loop_thread_.get_id()) return;
  uint64_t one = 1;
  [[maybe_unused]] ssize_t n = write(event_, &one, sizeof one);
}

void Engine::dispatch_dirty(Work& work, Time at) {
  while (!work.dirty.empty()) {
    std::vector<Task*> tasks = std::move(work.dirty);
    work.dirty.clear();
    std::sort(tasks.begin(), tasks.end());
    tasks.erase(std::unique(tasks.begin(), tasks.end()), tasks.end());
    // If tasks share a worker, the one with the earliest deadline is first.
    std::sort(tasks.begin(), tasks.end(), [](Task* a, Task* b) { return a->head_order() < b->head_order(); });
    for (Task* task : tasks) task->dispatch(work, at);
  }
}

Time Engine::call_deadline(const Task& task, const Entry& entry, int64_t items, Time at) const {
  double limit_ms = task.spec().deadline_ms;
  const Durations& deadlines = entry.route.deadline_ms;
  if (!deadlines.empty()) {
    auto found = std::find_if(deadlines.begin(), deadlines.end(), [&](const auto& row) { return row.first >= items; });
    double of_size_ms = found != deadlines.end()
                            ? found->second
                            : deadlines.back().second * double(items) / double(deadlines.back().first);
    // The first call of a batch size may take much longer than the profile says.
    limit_ms = entry.worker->has_answered(items) ? of_size_ms : std::max(of_size_ms, limit_ms);
  }
  return at + Time(limit_ms * 1e6);
}

void Engine::call(Work& work, Task& task, const Entry& entry, std::vector<Piece> pieces, Time at) {
  Server& server = *entry.worker->server;
  Connection* connection;
  if (server.idle.empty()) {
    server.connections.push_back(std::make_unique<Connection>(server));
    connection = server.connections.back().get();
  } else {
    connection = server.idle.back();
    server.idle.pop_back();
  }
  Call& call = connection->call;
  call = {};
  call.number = next_number_++;
  call.task = &task;
  call.worker = entry.worker;
  call.variant = entry.variant;
  call.service = entry.service;
  call.variant_name = entry.route.variant;
  call.tokens = entry.route.tokens;
  call.pads = entry.route.pads;
  call.sent = at;
  call.sent_running = running_time_.at(at);
  call.regions_allowed = !server.remote && !settings_.region_prefix.empty() && at >= server.no_regions_until;
  for (Piece& piece : pieces) {
    call.items += piece.size();
    if (!piece.job->first_sent) piece.job->first_sent = at;
    if (piece.again) call.again = true;
    if (!piece.job->traced) continue;
    if (!call.ids.empty()) call.ids += ',';
    const Request& request = *piece.job->flow->request();
    call.ids += traced_name(request);
    if (const TraceContext* trace = request.trace(); trace && call.trace.parent.empty())
      call.trace = trace->headers_of_call(call.number);
  }
  if (call.again) task.metrics().again.add(1);
  call.deadline = call_deadline(task, entry, call.items, at);
  call.pieces = std::move(pieces);
  connection->state = Connection::State::kSending;
  connection->aborted = false;
  calls_[call.number] = connection;
  deadlines_.emplace(call.sent_running + (call.deadline - at), call.number);
  work.sends.push_back(connection);
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
    for (Connection* connection : std::exchange(work.sends, {})) start(*connection, work);
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
      dispatch_dirty(work, now());
    }
  }
}

void Engine::start(Connection& connection, Work& work) {
  std::string reason;
  bool executed = false;
  try {
    connection.send();
  } catch (const ConnectionLost& error) {
    reason = error.what();
    executed = error.executed;
  } catch (const std::exception& error) {
    reason = std::string("cannot send: ") + error.what();
  }
  std::lock_guard lock(mutex_);
  if (reason.empty() && connection.aborted) {
    reason = "the server was taken out of service";
    executed = true;
  }
  if (reason.empty()) {
    // A connected socket has a listener. If that is a proxy, the server itself may still be unreachable.
    if (!connection.server().remote) connection.call.worker->reached();
    connection.state = Connection::State::kWaiting;
    arm(connection);
    return;
  }
  fail_call(connection, reason, executed, work);
  dispatch_dirty(work, now());
}

void Engine::arm(Connection& connection) {
  epoll_event event{};
  event.events = EPOLLIN | EPOLLONESHOT;
  if (connection.sending()) event.events |= EPOLLOUT;
  event.data.u64 = connection.call.number;
  int operation = connection.registered_with_loop ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
  connection.registered_with_loop = true;
  epoll_ctl(epoll_, operation, connection.socket(), &event);
}

void Engine::loop() {
  pthread_setname_np(pthread_self(), "jigsaw");
  std::vector<epoll_event> events(256);
  bool caught_up = true;
  while (!stopping_) {
    Work work;
    int timeout_ms = -1;
    {
      std::lock_guard lock(mutex_);
      Time at = now();
      // After a stop of this process, the answers that have arrived meanwhile are read before any call is judged.
      caught_up = running_time_.step(at) || !caught_up;
      // Deadlines of calls that have ended must not wake the loop.
      while (!deadlines_.empty() && !calls_.contains(deadlines_.top().second)) deadlines_.pop();
      Time running = running_time_.at(at);
      bool expired = !deadlines_.empty() && running >= deadlines_.top().first;
      if (caught_up && (at >= wake_ || at >= gauges_due_ || expired)) tick(at, work);
      Time next = caught_up ? std::min(wake_.load(), gauges_due_) : at;
      if (!deadlines_.empty())
        next = std::min(next, at + deadlines_.top().first - std::min(deadlines_.top().first, running));
      if (next != kNever) timeout_ms = next <= at ? 0 : int(std::min<Time>((next - at) / kMillisecond + 1, 1000));
    }
    if (!work.empty()) {
      run(work);
      continue;
    }
    int count = epoll_wait(epoll_, events.data(), int(events.size()), timeout_ms);
    for (int i = 0; i < count; i++) {
      if (events[size_t(i)].data.u64 == 0) {
        uint64_t value;
        [[maybe_unused]] ssize_t n = read(event_, &value, sizeof value);
      } else {
        on_event(events[size_t(i)].data.u64);
      }
    }
  }
}

void Engine::tick(Time at, Work& work) {
  expire(at, work);
  Time next = kNever;
  for (Task* task : tasks_) {
    if (task->wake_time() <= at) task->dispatch(work, at);
    next = std::min(next, task->wake_time());
  }
  wake_ = std::min(next, kept_locks_.release(at));
  if (at >= gauges_due_) {
    gauges_due_ = at + kGaugeInterval;
    tracer_.refresh_share();
    for (Task* task : tasks_) {
      // Idle tasks, too, so that the epoch of a new controller is known soon.
      task->refresh_route();
      task->update_gauges(at);
    }
  }
  dispatch_dirty(work, at);
}

void Engine::expire(Time at, Work& work) {
  while (!deadlines_.empty() && deadlines_.top().first <= running_time_.at(at)) {
    uint64_t number = deadlines_.top().second;
    deadlines_.pop();
    auto found = calls_.find(number);
    if (found == calls_.end()) continue;
    Connection& connection = *found->second;
    if (connection.state == Connection::State::kSending) {
      connection.aborted = true;
      continue;
    }
    if (connection.state == Connection::State::kRegistering) {
      refuse_regions(connection.server(), "it did not answer the registration of shared memory in time");
      disconnect(connection);
      end_registration(connection);
      continue;
    }
    const Call& call = connection.call;
    std::shared_ptr<Worker> worker = call.worker;
    std::string reason = "model " + worker->model + " did not answer a batch of " + std::to_string(call.items) +
                         " within " + std::to_string((call.deadline - call.sent) / kMillisecond) + " ms";
    fail_call(connection, reason, true, work);
    condemn(*worker->server, worker->model, reason, work);
  }
}

void Engine::on_event(uint64_t number) {
  Connection* connection = nullptr;
  Connection::State state;
  {
    std::lock_guard lock(mutex_);
    auto found = calls_.find(number);
    if (found == calls_.end()) return;
    connection = found->second;
    state = connection->state;
  }
  if (state == Connection::State::kRegistering) {
    on_registration(*connection);
    return;
  }
  if (state != Connection::State::kWaiting) return;
  Work work;
  try {
    if (!connection->resume()) {
      std::lock_guard lock(mutex_);
      arm(*connection);
      return;
    }
    on_answer(*connection, work);
  } catch (const ConnectionLost& error) {
    std::lock_guard lock(mutex_);
    fail_call(*connection, error.what(), error.executed, work);
    dispatch_dirty(work, now());
  } catch (const AnswerError& error) {
    std::lock_guard lock(mutex_);
    // The rest of the answer would be read as the next answer.
    disconnect(*connection);
    reject_call(*connection, error.blame, error.what(), work);
    dispatch_dirty(work, now());
  } catch (const std::exception& error) {
    std::lock_guard lock(mutex_);
    fail_call(*connection, std::string("invalid answer: ") + error.what(), true, work);
    dispatch_dirty(work, now());
  }
  run(work);
}

void Engine::on_answer(Connection& connection, Work& work) {
  if (connection.status() != 200) {
    std::string reason = connection.error();
    std::lock_guard lock(mutex_);
    std::shared_ptr<Worker> worker = connection.call.worker;
    switch (classify_error(connection.status(), reason)) {
      case ErrorKind::kUnhealthy:
        fail_call(connection, reason, true, work);
        condemn(*worker->server, worker->model, reason, work);
        break;
      case ErrorKind::kLost:
        fail_call(connection, reason, true, work);
        break;
      case ErrorKind::kNotRun:
        fail_call(connection, reason, false, work);
        break;
      case ErrorKind::kRejected:
        reject_call(connection, connection.status() == 400 ? Blame::kRequest : Blame::kModel, reason, work);
        break;
    }
    dispatch_dirty(work, now());
    return;
  }
  if (!connection.tokens_match()) {
    std::lock_guard lock(mutex_);
    std::shared_ptr<Worker> worker = connection.call.worker;
    std::string reason = "model " + worker->model + " returned the answer to another call";
    fail_call(connection, reason, true, work);
    condemn(*worker->server, worker->model, reason, work);
    dispatch_dirty(work, now());
    return;
  }
  connection.deliver();
  Time at = now();
  bool full = false;
  {
    std::lock_guard lock(mutex_);
    Call& call = connection.call;
    Time took = running_time_.at(at) - call.sent_running;
    call.worker->answered(call.items, took);
    call.service->add(call.items, double(took), call.worker->service.profiled(double(call.items)));
    TaskMetrics& metrics = call.task->metrics();
    VariantMetrics& variant = metrics.variants[call.variant];
    variant.seconds->observe(double(took) / 1e9);
    variant.items->observe(double(call.items));
    metrics.sent_bytes.add(double(call.sent_bytes));
    metrics.received_bytes.add(double(connection.received_bytes()));
    trace_call(call, "answered", at);
    if (connection.answered_early()) {
      answer_early(connection, at, work);
    } else {
      count_rows(call, variant);
      for (Piece& piece : call.pieces) {
        Job& job = *piece.job;
        job.answered += piece.size();
        job.last_received = at;
        if (job.answered == job.items) job.flow->job_answered(job, work);
      }
    }
    for (Piece& piece : call.pieces) piece.job->flow->drop(work);
    call.pieces.clear();
    full = call.task->has_full_batch() || !work.joins.empty();
    if (full) finish_call(connection, work);
    dispatch_dirty(work, at);
  }
  if (full) {
    // The next batch cannot grow: send it first, then respond to the clients.
    for (Connection* next : std::exchange(work.sends, {})) start(*next, work);
    run(work);
    return;
  }
  // Respond before the next batch is formed, so that clients that immediately send again can join it.
  run(work);
  std::lock_guard lock(mutex_);
  finish_call(connection, work);
  dispatch_dirty(work, now());
}

void Engine::count_rows(const Call& call, const VariantMetrics& variant) {
  if (variant.yields.empty()) return;
  const TaskSpec& spec = call.task->spec();
  size_t number = 0;
  for (size_t o = 0; o < spec.outputs.size(); o++) {
    if (!spec.outputs[o].yields) continue;
    for (const Piece& piece : call.pieces) {
      variant.yields[number].first->add(double(piece.size()));
      // The chunks of this call are the last ones. Search backwards, because a job may have very many chunks.
      const std::vector<Chunk>& chunks = piece.job->outputs[o].chunks;
      for (auto chunk = chunks.rbegin(); chunk != chunks.rend(); chunk++) {
        if (chunk->start < piece.start || chunk->stop > piece.stop) break;
        variant.yields[number].second->add(double(chunk->shape[0] * (chunk->stop - chunk->start)));
        if (chunk->start == piece.start) break;
      }
    }
    number++;
  }
}

void Engine::answer_early(Connection& connection, Time at, Work& work) {
  Job& job = *connection.call.pieces[0].job;
  job.last_received = at;
  Flow& flow = *job.flow;
  std::vector<std::pair<size_t, Value>> outputs;
  const auto& declared = flow.front().spec().outputs;
  for (auto& [name, value] : connection.early_outputs())
    for (size_t output = 0; output < declared.size(); output++)
      if (declared[output].name == name) {
        outputs.emplace_back(output, std::move(value));
        break;
      }
  flow.answer_early(job, std::move(outputs), work);
}

void Engine::finish_call(Connection& connection, Work& work) {
  Call& call = connection.call;
  Time at = now();
  calls_.erase(call.number);
  call.worker->release(at);
  for (Task* user : call.worker->tasks)
    if (user->has_waiting()) work.dirty.push_back(user);
  Server& server = connection.server();
  size_t wanted = connection.region_wanted();
  bool registers = wanted && wanted <= kMaxRegionBytes && connection.socket() >= 0 && call.regions_allowed &&
                   server.route_entries > 0 && !server.registering && at >= server.no_regions_until;
  if (registers) {
    // Shared memory is created and registered between calls, so that no call waits for it.
    call.number = next_number_++;
    connection.state = Connection::State::kRegistering;
    server.registering = true;
    calls_[call.number] = &connection;
    region_requests_.push_back({call.number, wanted});
    region_work_.notify_one();
    return;
  }
  return_to_pool(connection);
}

void Engine::region_loop() {
  pthread_setname_np(pthread_self(), "jigsaw-regions");
  std::unique_lock lock(mutex_);
  for (;;) {
    region_work_.wait(lock, [this] { return stopping_ || !region_requests_.empty() || !discarded_.empty(); });
    if (stopping_) return;
    std::vector<Region> discarded = std::exchange(discarded_, {});
    Region made;
    RegionRequest request{};
    bool wanted = false;
    if (!region_requests_.empty()) {
      request = region_requests_.front();
      region_requests_.pop_front();
      wanted = still_needed(request.number);
    }
    lock.unlock();
    discarded.clear();
    if (wanted) made = Region::make(settings_.region_prefix, request.bytes);
    lock.lock();
    // In the meantime, the server may have been taken out of service or have left the route.
    if (!wanted || !still_needed(request.number)) {
      discard(std::move(made));
      continue;
    }
    Connection& connection = *calls_[request.number];
    if (!made) {
      refuse_regions(connection.server(), "no shared memory could be created");
      end_registration(connection);
      continue;
    }
    try {
      discard(connection.register_region(std::move(made), settings_.secret));
      Time at = now();
      deadlines_.emplace(running_time_.at(at) + kSecond, request.number);
      wake_at(at + kSecond);
      arm(connection);
    } catch (const std::exception&) {
      // The server is gone; the next call will report it.
      disconnect(connection);
      end_registration(connection);
    }
  }
}

bool Engine::still_needed(uint64_t number) {
  auto found = calls_.find(number);
  if (found == calls_.end()) return false;
  if (found->second->server().route_entries > 0) return true;
  end_registration(*found->second);
  return false;
}

void Engine::end_registration(Connection& connection) {
  calls_.erase(connection.call.number);
  return_to_pool(connection);
}

void Engine::disconnect(Connection& connection) {
  discard(connection.take_region());
  connection.close();
}

void Engine::discard(Region region) {
  if (!region) return;
  discarded_.push_back(std::move(region));
  region_work_.notify_one();
}

void Engine::return_to_pool(Connection& connection) {
  Server& server = connection.server();
  if (connection.state == Connection::State::kRegistering) server.registering = false;
  connection.state = Connection::State::kIdle;
  if (server.route_entries == 0) discard(connection.retire(settings_.secret));
  server.idle.push_back(&connection);
  // Keep the worker until the end of this function: it may be the last owner of the server and of this connection.
  std::shared_ptr<Worker> worker = std::move(connection.call.worker);
  connection.call = {};
}

void Engine::on_registration(Connection& connection) {
  std::string problem;
  try {
    if (!connection.resume_registration()) {
      std::lock_guard lock(mutex_);
      arm(connection);
      return;
    }
    if (connection.status() != 200) problem = connection.error();
  } catch (const std::exception& error) {
    problem = error.what();
  }
  std::lock_guard lock(mutex_);
  if (!problem.empty()) {
    refuse_regions(connection.server(), "it refused shared memory: " + problem);
    disconnect(connection);
  }
  end_registration(connection);
}

void Engine::refuse_regions(Server& server, const std::string& reason) {
  server.no_regions_until = now() + kSharedMemoryBackoff;
  host_.log(LogLevel::kWarning, "worker " + server.name + ": large tensors go over the socket for the next " +
                                    std::to_string(kSharedMemoryBackoff / kSecond) + " s: " + reason);
}

void Engine::trace_call(const Call& call, const char* outcome, Time ended) {
  for (const Piece& piece : call.pieces)
    if (piece.job->traced && piece.job->calls.size() < kMaxTracedCalls)
      piece.job->calls.push_back({call.worker->server->name, call.worker->model, call.variant_name, piece.size(),
                                  call.items, call.sent, ended, outcome, piece.again, call.number});
}

void Engine::fail_call(Connection& connection, const std::string& reason, bool executed, Work& work) {
  Call& call = connection.call;
  Time at = now();
  Task& task = *call.task;
  std::string failure = "worker " + call.worker->server->name + " failed: " + reason;
  work.logs.emplace_back(LogLevel::kWarning, "task " + task.spec().name + ": " + failure);
  task.note_failure(failure);
  task.metrics().lost.add(1);
  call.worker->failed(at);
  trace_call(call, "failed", at);
  disconnect(connection);
  std::vector<Piece> pieces = std::exchange(call.pieces, {});
  const Server* server = call.worker->server.get();
  for (Piece& piece : pieces) {
    Flow* flow = piece.job->flow;
    if (flow->ended()) {
      flow->drop(work);
      continue;
    }
    if (!executed) {
      task.put_back(std::move(piece));
      continue;
    }
    if (piece.tries == 0 && task.spec().retry) {
      // Retry each piece alone, because one of them may have caused the failure.
      piece.tries = 1;
      piece.alone = true;
      piece.failures.push_back({server, server->name, server->node});
      task.put_back(std::move(piece));
      continue;
    }
    std::string message = "task " + task.spec().name + ": " + failure;
    if (!piece.failures.empty()) message += "; before that, worker " + piece.failures.front().name + " failed";
    task.metrics().refused[size_t(Reason::kWorker)]->add(1);
    flow->trace(*piece.job, "worker", message, at, work);
    flow->fail({Blame::kWorker, std::move(message)}, work);
    flow->drop(work);
  }
  work.dirty.push_back(&task);
  finish_call(connection, work);
}

void Engine::reject_call(Connection& connection, Blame blame, const std::string& reason, Work& work) {
  Call& call = connection.call;
  Time at = now();
  Task& task = *call.task;
  trace_call(call, "refused", at);
  std::vector<Piece> pieces = std::exchange(call.pieces, {});
  bool several = std::any_of(pieces.begin(), pieces.end(), [&](const Piece& p) { return p.job != pieces[0].job; });
  std::string message = reason;
  if (!task.spec().step) message = "task " + task.spec().name + ": worker " + call.worker->server->name + ": " + reason;
  for (Piece& piece : pieces) {
    Flow* flow = piece.job->flow;
    if (flow->ended()) {
      flow->drop(work);
      continue;
    }
    if (several && task.spec().retry) {
      // Retry each piece alone, so that one faulty request does not fail the others.
      piece.alone = true;
      task.put_back(std::move(piece));
      continue;
    }
    bool of_request = blame == Blame::kRequest && !task.spec().step;
    Reason counted = task.spec().step ? Reason::kCode : of_request ? Reason::kRequest : Reason::kModel;
    task.metrics().refused[size_t(counted)]->add(1);
    const char* outcome = task.spec().step ? "code" : of_request ? "request" : "model";
    flow->trace(*piece.job, outcome, message, at, work);
    flow->fail({of_request ? Blame::kRequest : Blame::kModel, message}, work);
    flow->drop(work);
  }
  work.dirty.push_back(&task);
  finish_call(connection, work);
}

void Engine::condemn(Server& server, const std::string& model, const std::string& reason, Work& work) {
  Time at = now();
  if (server.condemned(at)) return;
  write_condemned(server, model, reason, work);
  server.condemn(at);
  server.epoch++;
  // Do not wait for the other calls in flight: their answers could belong to other calls.
  for (size_t i = 0; i < server.connections.size(); i++) {
    Connection& connection = *server.connections[i];
    switch (connection.state) {
      case Connection::State::kIdle:
        disconnect(connection);
        break;
      case Connection::State::kSending:
        connection.aborted = true;
        break;
      case Connection::State::kWaiting:
        fail_call(connection, "the server was taken out of service: " + reason, true, work);
        break;
      case Connection::State::kRegistering:
        disconnect(connection);
        end_registration(connection);
        break;
    }
  }
}

void Engine::write_condemned(const Server& server, const std::string& model, const std::string& reason, Work& work) {
  ServerIdentity identity = ServerIdentity::of_socket(server.address);
  std::string text = "{\"worker\":";
  append_json(text, server.name);
  text += ",\"model\":";
  append_json(text, model);
  text += ",\"reason\":";
  append_json(text, reason);
  text += ",\"inode\":" + std::to_string(identity.inode) + "}\n";
  std::string folder = settings_.run_dir + "/condemned";
  std::string path = folder + "/" + server.name + ".json", temporary = path + ".new";
  mkdir(folder.c_str(), 0700);
  int file = open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  bool written = file >= 0 && ::write(file, text.data(), text.size()) == ssize_t(text.size());
  if (file >= 0) close(file);
  if (!written || rename(temporary.c_str(), path.c_str()) != 0)
    work.logs.emplace_back(LogLevel::kError,
                           "worker " + server.name + " cannot be reported to the controller: cannot write " + path);
  work.logs.emplace_back(LogLevel::kError, "worker " + server.name + " is taken out of service: " + reason);
}

}  // namespace jigsaw
