#include "core/front.h"

#include <algorithm>
#include <new>

#include "core/engine.h"
#include "core/sampled_request.h"
#include "core/split_request.h"

namespace jigsaw {
namespace {

// Returns how the inputs differ from the specification; empty if they match it. All later code relies on this check.
std::string input_error(const FrontSpec& spec, const std::vector<Value>& inputs) {
  for (size_t i = 0; i < inputs.size(); i++) {
    const BoundaryTensor& declared = spec.inputs[i];
    const Value& value = inputs[i];
    if (value.type != declared.type)
      return "input " + declared.name + " is of type " + name_of(value.type) + " where " + name_of(declared.type) +
             " was declared";
    std::optional<int64_t> count = element_count(value.shape);
    if (!count || value.shape.size() != declared.shape.size() + 1)
      return "input " + declared.name + " has shape " + text_of(value.shape) + " where each item has " +
             text_of(declared.shape);
    if (size_t size = element_size(value.type); size && value.size != size_t(*count) * size)
      return "input " + declared.name + " of shape " + text_of(value.shape) + " has " + std::to_string(value.size) +
             " bytes";
  }
  return {};
}

void reject(Request* request, Time arrival, const Failure& failure) {
  request->respond(&failure, {arrival});
  request->release();
}

void reject(Request* request, Time arrival, std::string reason) {
  reject(request, arrival, Failure{Blame::kRequest, std::move(reason)});
}

// Adds microseconds to a time; kNever if the sum overflows.
Time add_microseconds(Time at, uint64_t microseconds) {
  return microseconds < (kNever - at) / 1000 ? at + 1000 * microseconds : kNever;
}

}  // namespace

Front::Front(Engine& engine, std::string model, std::string_view spec)
    : engine_(engine), model_(std::move(model)), spec_(FrontSpec::parse(spec)), slo_ms_(spec_.slo_ms) {
  std::lock_guard lock(engine_.mutex());
  metrics_ = &engine_.graph_metrics(spec_.graph);
  if (spec_.capacity_rps > 0) metrics_->capacity.set(spec_.capacity_rps);
  followers_.resize(spec_.tasks.size());
  try {
    for (size_t t = 0; t < spec_.tasks.size(); t++)
      tasks_.push_back(std::make_unique<Task>(engine_, *this, spec_.tasks[t], t));
  } catch (...) {
    tasks_.clear();  // Requires the lock, so not left to the destructor.
    throw;
  }
  route_replaced();
  for (size_t t = 0; t < spec_.tasks.size(); t++) {
    for (size_t other = 0; other < spec_.tasks.size(); other++) {
      const TaskSpec& follower = spec_.tasks[other];
      auto made = [&](size_t tensor) {
        for (const OutputSpec& output : spec_.tasks[t].outputs)
          if (output.tensor == tensor) return true;
        for (const CountSpec& count : spec_.tasks[t].counts)
          if (count.tensor == tensor) return true;
        return false;
      };
      bool follows = follower.condition && made(follower.condition->tensor);
      for (const InputSpec& input : follower.inputs) follows = follows || made(input.tensor);
      if (follows) followers_[t].push_back(other);
    }
  }
}

Front::~Front() {
  std::unique_lock lock(engine_.mutex());
  idle_.wait(lock, [this] { return flows_ == 0; });
  tasks_.clear();
  if (engine_.registry().tasks_of(spec_.graph).empty()) metrics_->capacity.set(0);
}

void Front::route_replaced() {
  double longest = spec_.slo_ms;
  for (const auto& task : tasks_) longest = std::max(longest, task->longest_slo_ms());
  slo_ms_ = longest;
}

void Front::released() {
  if (--flows_ == 0) idle_.notify_all();
}

const FlowPlan& Front::plan(const std::vector<size_t>& wanted) {
  auto found = plans_.find(wanted);
  if (found == plans_.end()) {
    std::vector<size_t> outputs = wanted;
    if (outputs.empty())
      for (size_t i = 0; i < spec_.outputs.size(); i++) outputs.push_back(i);
    found = plans_.emplace(wanted, plan_flow(spec_, outputs)).first;
  }
  return found->second;
}

Task* Front::find_follower(const std::string& name) const { return engine_.registry().find(spec_.graph, name); }

template <typename Visit>
void Front::for_each_follower(size_t task, Visit visit) const {
  if (spec_.clock) {
    for (const std::string& name : spec_.tasks[task].followers)
      if (Task* follows = find_follower(name)) visit(*follows);
    return;
  }
  for (size_t follower : followers_[task]) visit(*tasks_[follower]);
}

bool Front::followers_full(size_t task, Time at) const {
  double batch = tasks_[task]->max_batch_time(at);
  bool full = false;
  for_each_follower(task, [&](Task& follows) { full = full || follows.is_full(batch, at); });
  return full;
}

template <typename Visit>
void Front::for_each_predecessor(size_t task, Visit visit) const {
  if (spec_.clock) {
    const std::string& name = spec_.tasks[task].name;
    for (Task* other : engine_.registry().tasks_of(spec_.graph)) {
      const std::vector<std::string>& followers = other->spec().followers;
      if (std::find(followers.begin(), followers.end(), name) != followers.end()) visit(*other);
    }
    return;
  }
  for (size_t other = 0; other < task; other++) {
    const std::vector<size_t>& followers = followers_[other];
    if (std::find(followers.begin(), followers.end(), task) != followers.end()) visit(*tasks_[other]);
  }
}

void Front::unblock_predecessors(size_t task, Work& work, Time at) {
  for_each_predecessor(task, [&](Task& before) {
    if (before.blocked() && !before.front().followers_full(before.index(), at)) work.dirty.push_back(&before);
  });
}

std::optional<Time> Front::next_results(size_t task, Time from) const {
  std::optional<Time> next;
  for_each_predecessor(task,
                       [&](const Task& before) { next = std::min(next.value_or(kNever), before.expected_end(from)); });
  return next;
}

size_t Front::predecessors(size_t task) const {
  size_t count = 0;
  for_each_predecessor(task, [&](const Task&) { count++; });
  return count;
}

void Front::announce_results(size_t task, int64_t requests, Time at) {
  if (!spec_.clock) return;
  for_each_follower(task, [&](Task& follows) {
    // A step with several predecessors gets a request once all of them have answered it.
    if (follows.front().predecessors(follows.index()) == 1) follows.announce(requests, at);
  });
}

void Front::consider_waiting_followers(size_t task, Work& work) const {
  for_each_follower(task, [&](Task& follows) {
    if (follows.waits()) work.dirty.push_back(&follows);
  });
}

Time Front::remaining_time_high(size_t task) const {
  return remaining_time(task, 2, [](Task& follows, Time at) { return follows.sojourn_high(at); });
}

Time Front::remaining_time(size_t task) const {
  return remaining_time(
      task, 1, [](Task& follows, Time at) { return follows.expected_wait(at) + follows.min_service_time(at); });
}

Time Front::remaining_time(size_t task, double profile_factor, TimeAtTask time_at_task) const {
  Time at = now();
  if (spec_.clock) {
    std::map<const Task*, Time> visited;
    return remaining_time_of_fronts(task, profile_factor, time_at_task, at, visited);
  }
  if (followers_[task].empty()) return 0;
  std::vector<double> remaining(spec_.tasks.size(), 0);
  for (size_t t = spec_.tasks.size(); t-- > task;)
    for (size_t follower : followers_[t])
      remaining[t] = std::max(remaining[t], time_at_task(*tasks_[follower], at) + remaining[follower]);
  return Time(remaining[task]);
}

Time Front::remaining_time_of_fronts(size_t task, double profile_factor, TimeAtTask time_at_task, Time at,
                                     std::map<const Task*, Time>& visited) const {
  const TaskSpec& spec = spec_.tasks[task];
  // `rest_ms` is the sum of service times. Under load, sojourn times are about twice as long.
  Time by_profile = Time(profile_factor * spec.rest_ms * 1e6), longest = 0;
  if (spec.followers.empty()) return by_profile;
  // While a new generation of a graph replaces the old one, the followers of their tasks can form a cycle.
  auto [entry, inserted] = visited.try_emplace(tasks_[task].get(), by_profile);
  if (!inserted) return entry->second;
  for (const std::string& name : spec.followers) {
    Task* follows = find_follower(name);
    if (!follows) return by_profile;
    Time after = follows->front().remaining_time_of_fronts(follows->index(), profile_factor, time_at_task, at, visited);
    longest = std::max(longest, Time(time_at_task(*follows, at)) + after);
  }
  visited[tasks_[task].get()] = longest;
  return longest;
}

void Front::submit(Request* request, std::vector<Value> inputs, RequestOptions options) {
  // An earlier step passes the time of arrival, which may be wrong.
  Time at = now();
  if (!options.arrival || options.arrival > at) options.arrival = at;
  request = sampled(*this, request, options);
  if (std::string problem = input_error(spec_, inputs); !problem.empty()) {
    reject(request, options.arrival, std::move(problem));
    return;
  }
  if (spec_.split && inputs[0].shape[0] > 1)
    split(request, std::move(inputs), options);
  else
    begin(request, std::move(inputs), options, nullptr);
}

void Front::split(Request* request, std::vector<Value> inputs, const RequestOptions& options) {
  auto items = size_t(inputs[0].shape[0]);
  std::vector<std::vector<size_t>> offsets(inputs.size());
  for (size_t i = 0; i < inputs.size(); i++) {
    std::string problem;
    if (size_t(inputs[i].shape[0]) != items) problem = " has a different batch size than input " + spec_.inputs[0].name;
    if (problem.empty() && inputs[i].type == DataType::kBytes) {
      try {
        offsets[i] = bytes_offsets({inputs[i].data, inputs[i].size}, *element_count(inputs[i].shape));
      } catch (const std::bad_alloc&) {
        reject(request, options.arrival, no_memory());
        return;
      } catch (const FormatError& error) {
        problem = std::string(": ") + error.what();
      }
    }
    if (problem.empty()) continue;
    reject(request, options.arrival, "input " + spec_.inputs[i].name + problem);
    return;
  }
  std::vector<size_t> wanted = options.wanted;
  if (wanted.empty())
    for (size_t i = 0; i < spec_.outputs.size(); i++) wanted.push_back(i);
  std::unique_ptr<SplitRequest> split_request;
  std::shared_ptr<Binding> binding;
  std::vector<Request*> requests;
  std::vector<std::vector<Value>> parts;
  try {
    parts.resize(items);
    binding = std::make_shared<Binding>(items);
    split_request = std::make_unique<SplitRequest>(spec_, request, wanted, items);
    // Prepare all items before the first one starts: the last one to end frees the request's inputs.
    for (size_t item = 0; item < items; item++)
      for (size_t i = 0; i < inputs.size(); i++) parts[item].push_back(item_of(inputs[i], item, items, offsets[i]));
    for (size_t item = 0; item < items; item++) requests.push_back(split_request->item(item));
  } catch (const std::bad_alloc&) {
    reject(request, options.arrival, no_memory());
    return;
  }
  {
    // The first item then waits for the others, which follow at once.
    std::lock_guard lock(engine_.mutex());
    Time at = now();
    for (const auto& task : tasks_)
      if (spec_.clock || !predecessors(task->index())) task->announce(int64_t(items), at);
  }
  // It deletes itself after the last item.
  [[maybe_unused]] SplitRequest* owned_by_items = split_request.release();
  for (size_t item = 0; item < items; item++) begin(requests[item], std::move(parts[item]), options, binding);
}

void Front::begin(Request* request, std::vector<Value> inputs, const RequestOptions& options,
                  std::shared_ptr<Binding> binding) {
  Time slo_end = options.arrival + slo();
  Time deadline = spec_.queue_overload ? kNever : slo_end, order = slo_end;
  std::string deadline_text = "the latency promised";
  if (options.timeout_us) {
    deadline = order = add_microseconds(options.arrival, options.timeout_us);
    deadline_text = "its timeout of " + std::to_string(options.timeout_us / 1000) + " ms";
  }
  if (options.deadline) {
    order = options.deadline;
    if (deadline != kNever) deadline = options.deadline;
  }
  Work work;
  Flow* flow = nullptr;
  {
    std::lock_guard lock(engine_.mutex());
    if (!spec_.clock || spec_.tasks[0].entry) metrics_->arrivals.add(double(inputs[0].shape[0]));
    try {
      if (!binding) binding = std::make_shared<Binding>(1);
      flow = new Flow(*this, plan(options.wanted), request, std::move(inputs), options.arrival, deadline, order,
                      std::move(deadline_text), binding);
    } catch (const std::bad_alloc&) {
      if (binding) binding->end_flow();
    }
    if (flow) {
      flows_++;
      flow->priority = options.priority;
      // Not the arrival: a request of a pipeline may have arrived at the gateway long ago.
      Time at = now();
      flow->traced = engine_.tracer().choose(request->id(), at) || request->trace();
      try {
        flow->start(work);
      } catch (const std::bad_alloc&) {
        flow->fail(no_memory(), work);
      }
      flow->drop(work);
      work.dispatch(at);
    }
  }
  if (flow)
    engine_.run(work);
  else
    reject(request, options.arrival, no_memory());
}

}  // namespace jigsaw
