#include "core/registry.h"

#include <algorithm>

#include "core/front.h"
#include "core/task.h"

namespace jigsaw {

std::shared_ptr<Worker> Registry::worker(const RouteEntry& entry) {
  std::shared_ptr<Server> server = servers_[entry.worker].lock();
  if (!server || server->remote != entry.remote) {
    std::string address = run_dir_ + "/workers/" + entry.worker + ".sock";
    server = std::make_shared<Server>(entry.worker, std::move(address), entry.remote);
    servers_[entry.worker] = server;
  }
  server->node = entry.node;
  auto& known = workers_[{entry.worker, entry.model}];
  std::shared_ptr<Worker> worker = known.lock();
  if (!worker || worker->server != server) {
    worker = std::make_shared<Worker>(server, entry.model, kept_locks_,
                                      run_dir_ + "/slots/" + entry.worker + "/" + entry.model);
    known = worker;
  }
  return worker;
}

std::shared_ptr<Generation> Registry::generation(const std::string& graph, int64_t number) {
  auto& known = generations_[{graph, number}];
  std::shared_ptr<Generation> generation = known.lock();
  if (!generation) {
    std::string path = run_dir_ + "/generations/" + graph + "." + std::to_string(number);
    GenerationSet bit = GenerationSet{1} << (generations_named_[graph]++ % kMaxGenerations);
    generation = std::make_shared<Generation>(host_, graph, number, bit, kept_locks_, std::move(path));
    known = generation;
  }
  return generation;
}

std::vector<std::shared_ptr<Server>> Registry::drop_unused() {
  std::vector<std::shared_ptr<Server>> unnamed;
  for (auto at = servers_.begin(); at != servers_.end();) {
    std::shared_ptr<Server> server = at->second.lock();
    if (server && server->route_entries == 0) unnamed.push_back(server);
    at = server ? std::next(at) : servers_.erase(at);
  }
  std::erase_if(workers_, [](const auto& item) { return item.second.expired(); });
  std::erase_if(generations_, [](const auto& item) { return item.second.expired(); });
  return unnamed;
}

void Registry::add(Task* task) {
  tasks_.insert(task);
  tasks_of_[task->front().spec().graph].push_back(task);
}

void Registry::remove(Task* task) {
  tasks_.erase(task);
  std::erase(tasks_of_[task->front().spec().graph], task);
}

Task* Registry::find(const std::string& graph, const std::string& task) {
  const std::vector<Task*>& tasks = tasks_of(graph);
  auto found = std::find_if(tasks.rbegin(), tasks.rend(), [&](Task* other) { return other->spec().name == task; });
  return found == tasks.rend() ? nullptr : *found;
}

}  // namespace jigsaw
