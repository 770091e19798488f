#include "core/flow.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <new>

#include "core/front.h"
#include "core/work.h"

namespace jigsaw {
namespace {

// Maximum bytes of answers that are joined with the lock held: joining them costs no more than unlocking and locking.
constexpr size_t kMaxBytesJoinedUnderLock = 64 * 1024;

// Returns the only element of a condition's tensor as a number; NaN if the type is not numeric.
double number_of(const Value& value) {
  auto read = [&]<typename T>(T zero) {
    memcpy(&zero, value.data, sizeof zero);
    return double(zero);
  };
  switch (value.type) {
    case DataType::kBool:
    case DataType::kUint8:
      return read(uint8_t{});
    case DataType::kUint16:
      return read(uint16_t{});
    case DataType::kUint32:
      return read(uint32_t{});
    case DataType::kUint64:
      return read(uint64_t{});
    case DataType::kInt8:
      return read(int8_t{});
    case DataType::kInt16:
      return read(int16_t{});
    case DataType::kInt32:
      return read(int32_t{});
    case DataType::kInt64:
      return read(int64_t{});
    case DataType::kFp32:
      return read(float{});
    case DataType::kFp64:
      return read(double{});
    case DataType::kBf16: {
      uint16_t half;
      memcpy(&half, value.data, sizeof half);
      uint32_t bits = uint32_t(half) << 16;
      float whole;
      memcpy(&whole, &bits, sizeof whole);
      return whole;
    }
    case DataType::kFp16: {
      uint16_t bits;
      memcpy(&bits, value.data, sizeof bits);
      int exponent = bits >> 10 & 31;
      double fraction = bits & 1023;
      double size = exponent == 0    ? std::ldexp(fraction, -24)
                    : exponent == 31 ? (fraction != 0 ? NAN : INFINITY)
                                     : std::ldexp(1024 + fraction, exponent - 25);
      return bits & 0x8000 ? -size : size;
    }
    default:
      return NAN;
  }
}

// Returns true if a shape matches the declaration for this number of items.
bool fits(const Shape& declared, const Shape& shape, int64_t items) {
  return shape.size() == declared.size() + 1 && shape[0] == items &&
         std::equal(declared.begin(), declared.end(), shape.begin() + 1,
                    [](int64_t expected, int64_t found) { return expected < 0 || expected == found; });
}

}  // namespace

FlowPlan plan_flow(const FrontSpec& spec, const std::vector<size_t>& wanted) {
  FlowPlan plan;
  size_t tasks = spec.tasks.size();
  plan.needed.assign(tasks, false);
  plan.waiting.assign(tasks, 0);
  plan.consumers.resize(spec.tensors.size());
  plan.sink.assign(spec.tensors.size(), -1);
  plan.outputs = wanted;
  std::vector<bool> tensors(spec.tensors.size(), false), given(spec.tensors.size(), false);
  for (const BoundaryTensor& input : spec.inputs) given[input.tensor] = true;
  for (size_t output : wanted) {
    size_t tensor = spec.outputs[output].tensor;
    tensors[tensor] = true;
    if (plan.sink[tensor] < 0 && !given[tensor]) plan.sink[tensor] = int(output);
  }
  for (size_t t = tasks; t-- > 0;) {
    const TaskSpec& task = spec.tasks[t];
    bool needed = false;
    for (const OutputSpec& output : task.outputs) needed = needed || tensors[output.tensor];
    for (const CountSpec& count : task.counts) needed = needed || tensors[count.tensor];
    if (!needed) continue;
    plan.needed[t] = true;
    plan.tasks++;
    std::vector<size_t> taken;
    for (const InputSpec& input : task.inputs) taken.push_back(input.tensor);
    if (task.condition) taken.push_back(task.condition->tensor);
    std::sort(taken.begin(), taken.end());
    taken.erase(std::unique(taken.begin(), taken.end()), taken.end());
    for (size_t tensor : taken) {
      tensors[tensor] = true;
      if (given[tensor]) continue;
      plan.waiting[t]++;
      plan.consumers[tensor].push_back(t);
    }
    // The step may answer early, after other outputs were computed: write none of them into the response directly.
    if (task.step) plan.sink.assign(spec.tensors.size(), -1);
  }
  return plan;
}

Flow::Flow(Front& front, const FlowPlan& plan, Request* request, std::vector<Value> inputs, Time arrival, Time deadline,
           Time order, std::string deadline_text, std::shared_ptr<Binding> binding)
    : front_(front),
      plan_(plan),
      request_(request),
      arrival_(arrival),
      deadline_(deadline),
      order_(order),
      deadline_text_(std::move(deadline_text)),
      binding_(std::move(binding)),
      values_(front.spec().tensors.size()),
      jobs_(front.spec().tasks.size()),
      waiting_(plan.waiting),
      tasks_left_(plan.tasks) {
  const auto& specs = front.spec().inputs;
  for (size_t i = 0; i < specs.size(); i++) values_[specs[i].tensor] = std::move(inputs[i]);
  timing_.arrival = arrival;
  timing_.items = values_[specs[0].tensor].shape[0];
}

bool Flow::still_needs(size_t task) const {
  const Job* job = jobs_[task].get();
  return plan_.needed[task] && !(job && job->answered == job->items);
}

GenerationSet Flow::served(Time at) const {
  GenerationSet found = binding_->generations();
  for (size_t task = 0; task < jobs_.size(); task++)
    if (still_needs(task)) found &= front_.tasks()[task]->served(at);
  return found;
}

const Task* Flow::unreachable_task(Time at) const {
  for (size_t i = 0; i < jobs_.size(); i++) {
    Task& task = *front_.tasks()[i];
    if (still_needs(i) && task.unreachable_since(binding_->generations(), at) != kNever) return &task;
  }
  return nullptr;
}

GenerationSet Flow::preferred(Time at) const {
  GenerationSet generations = binding_->generations();
  if (std::has_single_bit(generations)) return generations;
  GenerationSet found = served(at);
  return found ? found : generations;
}

void Flow::start(Work& work) {
  std::vector<size_t> ready;
  for (size_t task = 0; task < waiting_.size(); task++)
    if (plan_.needed[task] && waiting_[task] == 0) ready.push_back(task);
  if (tasks_left_ == 0)
    end(work);
  else
    advance(std::move(ready), work);
}

void Flow::advance(std::vector<size_t> ready, Work& work) {
  Time at = now();
  while (!ready.empty() && !ended_) {
    size_t task = ready.back();
    ready.pop_back();
    const TaskSpec& spec = front_.spec().tasks[task];
    TaskMetrics& metrics = front_.tasks()[task]->metrics();
    bool holds = true;
    if (spec.condition) {
      const Value& value = values_[spec.condition->tensor];
      if (element_count(value.shape) != 1) {
        metrics.refused[size_t(Reason::kRequest)]->add(1);
        fail({Blame::kRequest, "task " + spec.name +
                                   ": its condition needs a tensor of one element, but the tensor has shape " +
                                   text_of(value.shape)},
             work);
        return;
      }
      double number = number_of(value);
      holds = spec.condition->above ? number > spec.condition->bound : number < spec.condition->bound;
      metrics.checked->add(1);
      if (holds) metrics.held->add(1);
    }
    auto job = std::make_unique<Job>();
    job->flow = this;
    job->task = front_.tasks()[task].get();
    job->task_index = task;
    job->arrival = at;
    job->priority = priority;
    job->traced = traced;
    Time remaining = front_.remaining_time(task);
    if (deadline_ != kNever) {
      job->deadline = job->admission_deadline = deadline_ - std::min(deadline_, remaining);
      // A new request starts only if it can probably be finished. A started one continues as long as it has a chance.
      job->started = plan_.waiting[task] > 0 || (front_.spec().clock && !spec.entry);
      if (!job->started)
        job->admission_deadline =
            std::min(job->admission_deadline, deadline_ - std::min(deadline_, front_.remaining_time_high(task)));
    }
    job->order = order_ - std::min(order_, remaining);
    job->window = job->order - std::min(job->order, at);
    std::unique_ptr<Failure> failure;
    try {
      failure = job->take_inputs(spec, values_, holds);
    } catch (const std::bad_alloc&) {
      failure = std::make_unique<Failure>(no_memory());
    }
    if (failure) {
      bool of_request = failure->blame == Blame::kRequest;
      metrics.refused[size_t(of_request ? Reason::kRequest : Reason::kFull)]->add(1);
      fail(std::move(*failure), work);
      return;
    }
    jobs_[task] = std::move(job);
    if (jobs_[task]->items == 0) {
      join(*jobs_[task]);
      if (!complete_job(*jobs_[task], ready, work)) return;
    } else {
      jobs_[task]->task->enqueue(*jobs_[task], work, at);
    }
  }
}

void Flow::join(Job& job) {
  try {
    job.failure = job.join_outputs(front_.spec().tasks[job.task_index], values_);
  } catch (const std::bad_alloc&) {
    job.failure = std::make_unique<Failure>(no_memory());
  } catch (const std::exception& error) {
    job.failure = std::make_unique<Failure>(Failure{Blame::kModel, error.what()});
  }
}

bool Flow::complete_job(Job& job, std::vector<size_t>& ready, Work& work) {
  const TaskSpec& spec = front_.spec().tasks[job.task_index];
  if (std::unique_ptr<Failure> failure = std::move(job.failure)) {
    bool of_request = failure->blame == Blame::kRequest;
    failure->message = "task " + spec.name + ": " + failure->message;
    job.task->metrics().refused[size_t(of_request ? Reason::kRequest : Reason::kModel)]->add(1);
    trace(job, of_request ? "request" : "model", failure->message, job.last_received, work);
    fail(std::move(*failure), work);
    return false;
  }
  // A task without items sent nothing to a worker, so it has no trace.
  if (job.items) trace(job, "answered", "", job.last_received, work);
  auto made = [&](size_t tensor) {
    for (size_t consumer : plan_.consumers[tensor])
      if (--waiting_[consumer] == 0) ready.push_back(consumer);
  };
  for (const OutputSpec& output : spec.outputs) made(output.tensor);
  for (const CountSpec& count : spec.counts) made(count.tensor);
  if (--tasks_left_ == 0) end(work);
  return !ended_;
}

void Flow::record_timing(const Job& job) {
  if (!timing_.first_sent || job.first_sent < timing_.first_sent) timing_.first_sent = job.first_sent;
  timing_.last_received = std::max(timing_.last_received, job.last_received);
  TaskMetrics& metrics = job.task->metrics();
  metrics.wait.observe(double(job.first_sent - std::min(job.first_sent, job.arrival)) / 1e9);
  metrics.dispatch.observe(double(job.last_received - job.first_sent) / 1e9);
}

void Flow::job_answered(Job& job, Work& work) {
  if (ended_) return;
  record_timing(job);
  job.task->record_sojourn(job, job.last_received);
  if (job.chunk_bytes() > kMaxBytesJoinedUnderLock) {
    hold();
    work.joins.push_back(&job);
    return;
  }
  join(job);
  joined(job, work);
}

void Flow::joined(Job& job, Work& work) {
  if (ended_) return;
  std::vector<size_t> ready;
  if (complete_job(job, ready, work)) advance(std::move(ready), work);
}

void Flow::end(Work& work) {
  ended_ = true;
  generation_ = binding_->only();
  binding_->end_flow();
  hold();
  work.answers.push_back(this);
}

void Flow::fail(Failure failure, Work& work) {
  if (ended_) return;
  failure_ = std::make_unique<Failure>(std::move(failure));
  end(work);
}

void Flow::answer_early(const Job& job, std::vector<std::pair<size_t, Value>> outputs, Work& work) {
  if (ended_) return;
  record_timing(job);
  job.task->record_sojourn(job, job.last_received);
  trace(job, "answered", "", job.last_received, work);
  early_ = std::move(outputs);
  early_answer_ = true;
  end(work);
}

void Flow::drop(Work& work) {
  if (--holders_ == 0) work.releases.push_back(this);
}

char* Flow::memory(size_t tensor, DataType type, const Shape& shape, size_t size, std::shared_ptr<char[]>& owner) {
  if (plan_.sink[tensor] >= 0) return request_->allocate(size_t(plan_.sink[tensor]), type, shape, size);
  owner = std::shared_ptr<char[]>(new char[std::max<size_t>(size, 1)]);
  return owner.get();
}

void Flow::trace(const Job& job, const char* outcome, const std::string& message, Time at, Work& work) {
  if (job.traced) work.hops.push_back(Tracer::hop(job, *request_, front_.spec(), outcome, message, at));
}

void Flow::copy_outputs() {
  const FrontSpec& spec = front_.spec();
  for (size_t output : plan_.outputs) {
    size_t tensor = spec.outputs[output].tensor;
    const Value* value = &values_[tensor];
    if (early_answer_) {
      value = nullptr;
      for (const auto& [index, given] : early_)
        if (index == output) value = &given;
      const BoundaryTensor& declared = spec.outputs[output];
      if (!value) throw std::runtime_error("output " + declared.name + " is missing in the early answer");
      if (value->type != declared.type || !fits(declared.shape, value->shape, timing_.items))
        throw std::runtime_error("output " + declared.name +
                                 " of the early answer does not have the declared type and shape");
    } else if (plan_.sink[tensor] == int(output)) {
      continue;
    }
    char* to = request_->allocate(output, value->type, value->shape, value->size);
    if (value->size) memcpy(to, value->data, value->size);
  }
}

void Flow::respond() {
  if (!failure_) {
    try {
      copy_outputs();
    } catch (const std::exception& error) {
      failure_ = std::make_unique<Failure>(Failure{Blame::kModel, error.what()});
    }
  }
  Time took = now() - arrival_;
  bool in_time = took <= front_.slo();
  auto outcome = size_t(failure_ ? Outcome::kFailed : in_time ? Outcome::kMet : Outcome::kMissed);
  // A one-task front sees only a part of the request's time.
  if (!front_.spec().clock) front_.metrics().slo[outcome]->add(1);
  if (generation_) {
    generation_->metrics.requests[outcome]->add(1);
    if (!failure_) generation_->metrics.seconds->observe(double(took) / 1e9);
  }
  request_->respond(failure_.get(), timing_);
}

}  // namespace jigsaw
