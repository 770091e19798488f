// What follows from a call that fails: its items go to other workers, or its requests fail, and a server that may give
// wrong answers is taken out of service.
#pragma once

#include <string>
#include <utility>

#include "core/calls.h"
#include "core/connection_pool.h"
#include "core/registrations.h"
#include "core/work.h"

namespace jigsaw {

// Owned by the engine; all functions require its lock.
class Failover {
 public:
  // `run_dir` is the folder with condemned/.
  Failover(std::string run_dir, Calls& calls, ConnectionPool& pool, Registrations& registrations)
      : run_dir_(std::move(run_dir)), calls_(calls), pool_(pool), registrations_(registrations) {}

  // Handles a call that has failed. Its pieces are retried if the call was not executed, or may be executed again.
  void fail(Connection& connection, const std::string& reason, bool executed, Work& work);

  // Handles a call that the model has rejected. If it has several jobs, each of them is retried alone.
  void reject(Connection& connection, Blame blame, const std::string& reason, Work& work);

  // Handles a call after which the server may answer other calls with wrong results: fails the call and takes the
  // server out of service.
  void condemn(Connection& connection, const std::string& reason, Work& work);

  // Ends a call whose deadline has passed.
  void expire(Connection& connection, Work& work);

 private:
  // Takes a server out of service, fails its calls and reports it to the controller.
  void condemn(Server& server, const std::string& model, const std::string& reason, Work& work);
  void report_condemned(const Server& server, const std::string& model, const std::string& reason, Work& work);

  const std::string run_dir_;
  Calls& calls_;
  ConnectionPool& pool_;
  Registrations& registrations_;
};

}  // namespace jigsaw
