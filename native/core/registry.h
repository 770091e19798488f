// The workers, generations and tasks of a process, by name.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "core/generation.h"
#include "core/host.h"
#include "core/lock.h"
#include "core/spec.h"
#include "core/worker.h"

namespace jigsaw {

class Task;

// Finds what several fronts share. Owned by the engine; all functions require its lock.
class Registry {
 public:
  // `run_dir` is the folder with workers/, slots/ and generations/.
  Registry(Host& host, std::string run_dir, KeptLocks& kept)
      : host_(host), run_dir_(std::move(run_dir)), kept_locks_(kept) {}

  // Returns the worker that an entry of a route names; creates it if it is new.
  std::shared_ptr<Worker> worker(const RouteEntry& entry);

  // Returns a generation of a graph that a route names.
  std::shared_ptr<Generation> generation(const std::string& graph, int64_t number);

  // Forgets the servers and generations that nothing uses. Returns the servers that are still used, although no route
  // names them any longer.
  std::vector<std::shared_ptr<Server>> drop_unused();

  // Registers and unregisters a task.
  void add(Task* task);
  void remove(Task* task);

  const std::set<Task*>& tasks() const { return tasks_; }

  // Returns the tasks of a graph in the order of their registration.
  const std::vector<Task*>& tasks_of(const std::string& graph) { return tasks_of_[graph]; }

  // Returns the task of a graph in the latest front that has it, or nullptr.
  Task* find(const std::string& graph, const std::string& task);

 private:
  Host& host_;
  const std::string run_dir_;
  KeptLocks& kept_locks_;
  std::map<std::string, std::weak_ptr<Server>> servers_;
  std::map<std::pair<std::string, std::string>, std::weak_ptr<Worker>> workers_;  // By server and model.
  std::map<std::pair<std::string, int64_t>, std::weak_ptr<Generation>> generations_;
  std::map<std::string, size_t> generations_named_;  // Number of generations of each graph so far.
  std::set<Task*> tasks_;
  std::map<std::string, std::vector<Task*>> tasks_of_;  // Tasks by graph.
};

}  // namespace jigsaw
