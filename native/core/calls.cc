#include "core/calls.h"

#include <utility>

#include "core/flow.h"
#include "core/front.h"
#include "core/trace.h"

namespace jigsaw {
namespace {

// Maximum number of calls in the trace of a request at one task; a request of many rows makes as many calls.
constexpr size_t kMaxTracedCalls = 256;

}  // namespace

void Calls::begin(Work& work, Task& task, const Entry& entry, std::vector<Piece> pieces, Time at, Time slot_at) {
  Server& server = *entry.worker->server;
  server.check_identity(at);
  Connection& connection = pool_.take(server);
  Call& call = connection.call;
  call = {};
  call.number = pending_.add(connection);
  call.task = &task;
  call.worker = entry.worker;
  call.variant = entry.variant;
  call.service = entry.service;
  call.variant_name = entry.route.variant;
  call.tokens = entry.route.tokens;
  call.pads = entry.route.pads;
  call.sent = at;
  call.started = pending_.running_time().at(at);
  call.early = entry.worker->in_flight() > entry.capacity;
  call.regions_allowed = registrations_.allowed(server, at);
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
  call.timeout = entry.call_timeout(call.items, task.spec().deadline_ms);
  call.expected_end = slot_at + Time(entry.worker->service.mean(call.items));
  task.expect_end(call);
  call.pieces = std::move(pieces);
  connection.state = Connection::State::kSending;
  connection.aborted = false;
  // Until an early call gets a slot, the deadlines of the calls before it apply.
  if (call.early) {
    entry.worker->early = &connection;
    task.add_early_items(call.items);
  } else {
    pending_.set_deadline(call.number, call.started + call.timeout);
  }
  work.sends.push_back(&connection);
}

void Calls::end_expectation(Call& call, Work& work) {
  if (call.expected_end == kNever) return;
  call.task->end_expectation(call);
  call.expected_end = kNever;
  call.task->front().consider_waiting_followers(call.task->index(), work);
}

void Calls::finish(Connection& connection, bool answered, Work& work) {
  Call& call = connection.call;
  end_expectation(call, work);
  Time at = now();
  pending_.remove(call.number);
  call.worker->release(at);
  pass_slot(call, answered, at);
  for (const Use& use : call.worker->uses())
    if (use.task->has_waiting()) work.dirty.push_back(use.task);
  // Shared memory is created and registered between calls, so that no call waits for it.
  if (!registrations_.begin(connection, at)) pool_.give_back(connection);
}

void Calls::pass_slot(const Call& ended, bool answered, Time at) {
  Worker& worker = *ended.worker;
  Connection* next = std::exchange(worker.early, nullptr);
  if (!next) return;
  Call& call = next->call;
  call.task->add_early_items(-call.items);
  if (next->call.number == ended.number) return;
  // It is not known whether a worker that failed has begun its next call.
  if (answered) call.early = false;
  call.started = pending_.running_time().at(at);
  pending_.set_deadline(call.number, call.started + call.timeout);
  if (call.expected_end == kNever) return;
  call.task->forget_end(call);
  call.expected_end = at + Time(worker.service.mean(call.items));
  call.task->expect_end(call);
}

void Calls::trace(const Call& call, const char* outcome, Time ended) {
  for (const Piece& piece : call.pieces)
    if (piece.job->traced && piece.job->calls.size() < kMaxTracedCalls)
      piece.job->calls.push_back({call.worker->server->name, call.worker->model, call.variant_name, piece.size(),
                                  call.items, call.sent, ended, outcome, piece.again, call.number});
}

}  // namespace jigsaw
