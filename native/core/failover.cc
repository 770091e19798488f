#include "core/failover.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "core/flow.h"
#include "core/json.h"

namespace jigsaw {

void Failover::fail(Connection& connection, const std::string& reason, bool executed, Work& work) {
  Call& call = connection.call;
  Time at = now();
  Task& task = *call.task;
  if (call.early) executed = false;
  std::string failure = "worker " + call.worker->server->name + " failed: " + reason;
  // A worker that is absent is tried several times a second. Its first failure is enough for the log.
  if (executed || call.worker->unreachable_since(at) == kNever)
    work.logs.emplace_back(LogLevel::kWarning, "task " + task.spec().name + ": " + failure);
  task.note_failure(failure);
  task.metrics().lost.add(1);
  // The calls ahead of an early one show whether the worker has failed.
  if (call.early)
    call.worker->no_early_until = at + kSecond;
  else
    call.worker->failed(executed, at);
  Calls::trace(call, "failed", at);
  pool_.disconnect(connection);
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
  calls_.finish(connection, false, work);
}

void Failover::reject(Connection& connection, Blame blame, const std::string& reason, Work& work) {
  Call& call = connection.call;
  Time at = now();
  Task& task = *call.task;
  Calls::trace(call, "refused", at);
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
  calls_.finish(connection, true, work);
}

void Failover::condemn(Connection& connection, const std::string& reason, Work& work) {
  std::shared_ptr<Worker> worker = connection.call.worker;
  fail(connection, reason, true, work);
  condemn(*worker->server, worker->model, reason, work);
}

void Failover::expire(Connection& connection, Work& work) {
  if (connection.state == Connection::State::kSending) {
    connection.aborted = true;
    return;
  }
  const Call& call = connection.call;
  condemn(connection,
          "model " + call.worker->model + " did not answer a batch of " + std::to_string(call.items) + " within " +
              std::to_string(call.timeout / kMillisecond) + " ms",
          work);
}

void Failover::condemn(Server& server, const std::string& model, const std::string& reason, Work& work) {
  Time at = now();
  if (server.condemned(at)) return;
  server.condemn(at);
  server.epoch++;
  report_condemned(server, model, reason, work);
  // Do not wait for the other calls in flight: their answers could belong to other calls.
  for (size_t i = 0; i < server.connections.size(); i++) {
    Connection& connection = *server.connections[i];
    switch (connection.state) {
      case Connection::State::kIdle:
        pool_.disconnect(connection);
        break;
      case Connection::State::kSending:
        connection.aborted = true;
        break;
      case Connection::State::kWaiting:
        fail(connection, "the server was taken out of service: " + reason, true, work);
        break;
      case Connection::State::kRegistering:
        registrations_.abort(connection);
        break;
    }
  }
}

void Failover::report_condemned(const Server& server, const std::string& model, const std::string& reason, Work& work) {
  std::string text = "{\"worker\":";
  append_json(text, server.name);
  text += ",\"model\":";
  append_json(text, model);
  text += ",\"reason\":";
  append_json(text, reason);
  text += ",\"identity\":" + std::to_string(server.identity()) + "}\n";
  std::string folder = run_dir_ + "/condemned";
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
