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

void Calls::begin(Work& work, Task& task, const Entry& entry, std::vector<Piece> pieces, Time at) {
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
  call.sent_running = pending_.running_time().at(at);
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
  Time timeout = entry.call_timeout(call.items, task.spec().deadline_ms);
  call.deadline = at + timeout;
  call.expected_end = at + Time(entry.worker->service.mean(call.items));
  task.expect_end(call.expected_end);
  call.pieces = std::move(pieces);
  connection.state = Connection::State::kSending;
  connection.aborted = false;
  pending_.set_deadline(call.number, call.sent_running + timeout);
  work.sends.push_back(&connection);
}

void Calls::end_expectation(Call& call, Work& work) {
  Time expected = std::exchange(call.expected_end, kNever);
  if (expected == kNever) return;
  call.task->end_expectation(expected);
  call.task->front().consider_waiting_followers(call.task->index(), work);
}

void Calls::finish(Connection& connection, Work& work) {
  Call& call = connection.call;
  end_expectation(call, work);
  Time at = now();
  pending_.remove(call.number);
  call.worker->release(at);
  for (const Use& use : call.worker->uses())
    if (use.task->has_waiting()) work.dirty.push_back(use.task);
  // Shared memory is created and registered between calls, so that no call waits for it.
  if (!registrations_.begin(connection, at)) pool_.give_back(connection);
}

void Calls::trace(const Call& call, const char* outcome, Time ended) {
  for (const Piece& piece : call.pieces)
    if (piece.job->traced && piece.job->calls.size() < kMaxTracedCalls)
      piece.job->calls.push_back({call.worker->server->name, call.worker->model, call.variant_name, piece.size(),
                                  call.items, call.sent, ended, outcome, piece.again, call.number});
}

}  // namespace jigsaw
