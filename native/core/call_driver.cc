#include "core/call_driver.h"

#include <mutex>
#include <string_view>

#include "core/engine.h"
#include "core/flow.h"
#include "core/front.h"

namespace jigsaw {
namespace {

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

// Counts the rows in the outputs of an answer, by which the controller measures the fan-out.
void count_rows(const Call& call, const VariantMetrics& variant) {
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

}  // namespace

void CallDriver::send(Connection& connection, Work& work) {
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
  std::lock_guard lock(engine_.mutex());
  if (reason.empty() && connection.aborted) {
    reason = "the server was taken out of service";
    executed = true;
  }
  if (reason.empty()) {
    // A connected socket has a listener. If that is a proxy, the server itself may still be unreachable.
    if (!connection.server().remote) connection.call.worker->reached();
    connection.state = Connection::State::kWaiting;
    loop_.arm(connection);
    return;
  }
  failover_.fail(connection, reason, executed, work);
  work.dispatch(now());
}

void CallDriver::on_event(Connection& connection) {
  Work work;
  try {
    if (!connection.resume()) {
      std::lock_guard lock(engine_.mutex());
      loop_.arm(connection);
      return;
    }
    on_answer(connection, work);
  } catch (const ConnectionLost& error) {
    std::lock_guard lock(engine_.mutex());
    failover_.fail(connection, error.what(), error.executed, work);
    work.dispatch(now());
  } catch (const AnswerError& error) {
    std::lock_guard lock(engine_.mutex());
    // The rest of the answer would be read as the next answer.
    pool_.disconnect(connection);
    failover_.reject(connection, error.blame, error.what(), work);
    work.dispatch(now());
  } catch (const std::exception& error) {
    std::lock_guard lock(engine_.mutex());
    failover_.fail(connection, std::string("invalid answer: ") + error.what(), true, work);
    work.dispatch(now());
  }
  engine_.run(work);
}

void CallDriver::on_error(Connection& connection, Work& work) {
  std::string reason = connection.error();
  std::lock_guard lock(engine_.mutex());
  switch (classify_error(connection.status(), reason)) {
    case ErrorKind::kUnhealthy:
      failover_.condemn(connection, reason, work);
      break;
    case ErrorKind::kLost:
      failover_.fail(connection, reason, true, work);
      break;
    case ErrorKind::kNotRun:
      failover_.fail(connection, reason, false, work);
      break;
    case ErrorKind::kRejected:
      failover_.reject(connection, connection.status() == 400 ? Blame::kRequest : Blame::kModel, reason, work);
      break;
  }
  work.dispatch(now());
}

void CallDriver::on_answer(Connection& connection, Work& work) {
  if (connection.status() != 200) {
    on_error(connection, work);
    return;
  }
  if (!connection.tokens_match()) {
    std::lock_guard lock(engine_.mutex());
    failover_.condemn(connection, "model " + connection.call.worker->model + " returned the answer to another call",
                      work);
    work.dispatch(now());
    return;
  }
  connection.deliver();
  Time at = now();
  bool full = false;
  {
    std::lock_guard lock(engine_.mutex());
    deliver(connection, at, work);
    full = connection.call.task->has_full_batch() || !work.joins.empty();
    if (full) calls_.finish(connection, true, work);
    work.dispatch(at);
  }
  if (full) {
    // The next batch cannot grow: send it first, then respond to the clients.
    for (Connection* next : std::exchange(work.sends, {})) send(*next, work);
    engine_.run(work);
    return;
  }
  // Respond before the next batch is formed, so that clients that immediately send again can join it.
  engine_.run(work);
  std::lock_guard lock(engine_.mutex());
  calls_.finish(connection, true, work);
  work.dispatch(now());
}

void CallDriver::deliver(Connection& connection, Time at, Work& work) {
  Call& call = connection.call;
  // While it is not known when an early call got its slot, its duration is not known either.
  std::optional<Time> took;
  if (!call.early) took = pending_.running_time().at(at) - call.started;
  Calls::end_expectation(call, work);
  calls_.pass_slot(call, true, at);
  call.worker->answered(call.items, took);
  TaskMetrics& metrics = call.task->metrics();
  VariantMetrics& variant = metrics.variants[call.variant];
  if (took) {
    call.service->add(call.items, double(*took), call.worker->service.profiled(double(call.items)));
    variant.seconds->observe(double(*took) / 1e9);
  }
  variant.items->observe(double(call.items));
  metrics.sent_bytes.add(double(call.sent_bytes));
  metrics.received_bytes.add(double(connection.received_bytes()));
  Calls::trace(call, "answered", at);
  if (connection.answered_early()) {
    answer_early(connection, at, work);
  } else {
    count_rows(call, variant);
    int64_t answered = 0;
    for (Piece& piece : call.pieces) {
      Job& job = *piece.job;
      job.answered += piece.size();
      job.last_received = at;
      if (job.answered < job.items) continue;
      if (!job.flow->ended()) answered++;
      job.flow->job_answered(job, work);
    }
    call.task->front().announce_results(call.task->index(), answered, at);
  }
  for (Piece& piece : call.pieces) piece.job->flow->drop(work);
  call.pieces.clear();
}

void CallDriver::answer_early(Connection& connection, Time at, Work& work) {
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

}  // namespace jigsaw
