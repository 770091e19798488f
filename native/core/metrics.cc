#include "core/metrics.h"

#include <algorithm>
#include <cmath>
#include <sstream>

namespace jigsaw {
namespace {

const std::vector<double> kSeconds = {0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5};
// Buckets that are a quarter apart, from 1 ms to 10 s, so that the 99th percentiles of two generations can be compared.
const std::vector<double> kFineSeconds = [] {
  std::vector<double> bounds;
  double bound = 0.001;
  while (bound < 10) {
    bounds.push_back(std::round(bound * 1e5) / 1e5);
    bound *= 1.25;
  }
  return bounds;
}();

const std::vector<double> kItems = {1, 2, 4, 8, 16, 32, 64, 128};

constexpr const char* kOutcomeNames[kOutcomes] = {"met", "missed", "failed"};

constexpr const char* kReasonNames[kReasons] = {"late", "full", "worker", "request", "model", "code", "cancelled"};

// Splits the name of a chain, whose tasks one call executes: "first~second".
std::vector<std::string> split_names(const std::string& name) {
  std::vector<std::string> found;
  std::istringstream text(name);
  for (std::string part; std::getline(text, part, '~');) found.push_back(part);
  return found;
}

// Labels of an output that yields rows: those of the task that produces it, which may be a member of a chain.
Labels producer_labels(const std::string& graph, const TaskSpec& task, const std::string& variant,
                       const std::string& output) {
  std::vector<std::string> tasks = split_names(task.name), variants = split_names(variant);
  size_t dot = output.find('.');
  if (tasks.size() > 1 && variants.size() == tasks.size() && dot != std::string::npos)
    for (size_t i = 0; i < tasks.size(); i++)
      if (tasks[i] == output.substr(0, dot))
        return {{"graph", graph}, {"task", tasks[i]}, {"variant", variants[i]}, {"output", output.substr(dot + 1)}};
  if (task.step) return {{"graph", graph}, {"task", task.name}, {"output", output}};
  return {{"graph", graph}, {"task", task.name}, {"variant", variant}, {"output", output}};
}

}  // namespace

Metric& MetricRegistry::counter(const std::string& name, const std::string& help, const Labels& labels) {
  return find(MetricKind::kCounter, name, help, labels, {});
}

Metric& MetricRegistry::gauge(const std::string& name, const std::string& help, const Labels& labels) {
  return find(MetricKind::kGauge, name, help, labels, {});
}

Metric& MetricRegistry::histogram(const std::string& name, const std::string& help, const Labels& labels,
                                  const std::vector<double>& buckets) {
  return find(MetricKind::kHistogram, name, help, labels, buckets);
}

Metric& MetricRegistry::find(MetricKind kind, const std::string& name, const std::string& help, const Labels& labels,
                             const std::vector<double>& buckets) {
  auto& series = series_[{name, labels}];
  if (!series) series = host_.metric(kind, name, help, labels, buckets);
  return *series;
}

GraphMetrics::GraphMetrics(MetricRegistry& registry, const std::string& graph)
    : arrivals(registry.counter("jigsaw_arrivals_total",
                                "Requests to the graph, including refused ones. A batch of a client counts as one "
                                "request for each of its items.",
                                {{"graph", graph}})),
      capacity(registry.gauge("jigsaw_capacity_rps",
                              "Requests per second that the graph's plan can serve. Only with target `graph`.",
                              {{"graph", graph}})) {
  for (size_t outcome = 0; outcome < kOutcomes; outcome++)
    slo[outcome] = &registry.counter("jigsaw_slo_total",
                                     "Requests by outcome: `met` (answered within the latency of the SLO), `missed` "
                                     "(answered later) or `failed` (not answered). Only with target `graph`.",
                                     {{"graph", graph}, {"outcome", kOutcomeNames[outcome]}});
}

GenerationMetrics::GenerationMetrics(Host& host, const std::string& graph, int64_t generation) {
  Labels labels = {{"graph", graph}, {"generation", std::to_string(generation)}};
  seconds = host.metric(MetricKind::kHistogram, "jigsaw_generation_seconds",
                        "Time from the arrival of requests that only this generation could answer to their answer, "
                        "without failed ones. The buckets are a quarter apart, from 1 ms to 10 s.",
                        labels, kFineSeconds);
  labels.emplace_back("outcome", "");
  for (size_t outcome = 0; outcome < kOutcomes; outcome++) {
    labels.back().second = kOutcomeNames[outcome];
    requests[outcome] = host.metric(
        MetricKind::kCounter, "jigsaw_generation_requests_total",
        "Requests that only this generation could answer, by outcome as in `jigsaw_slo_total`.", labels, {});
  }
}

TaskMetrics::TaskMetrics(MetricRegistry& registry, const std::string& graph, const TaskSpec& task)
    : requests(registry.counter("jigsaw_requests_total", "Requests that reached the task.",
                                {{"graph", graph}, {"task", task.name}})),
      again(registry.counter(
          "jigsaw_batches_again_total",
          "Batches sent again, in part or whole, after a worker failed or to find the request that is at fault.",
          {{"graph", graph}, {"task", task.name}})),
      lost(registry.counter("jigsaw_batches_lost_total", "Batches on which a worker failed.",
                            {{"graph", graph}, {"task", task.name}})),
      sent_bytes(registry.counter("jigsaw_sent_bytes_total",
                                  "Bytes of the tensors in answered batches, including those in shared memory.",
                                  {{"graph", graph}, {"task", task.name}})),
      received_bytes(registry.counter(
          "jigsaw_received_bytes_total",
          "Bytes of the bodies of answers. Tensors that workers write to shared memory are not counted.",
          {{"graph", graph}, {"task", task.name}})),
      wait(registry.histogram("jigsaw_wait_seconds", "Time that answered requests spent in the task's queue.",
                              {{"graph", graph}, {"task", task.name}}, kSeconds)),
      dispatch(registry.histogram("jigsaw_dispatch_seconds",
                                  "Time of answered requests between leaving the queue and their answer.",
                                  {{"graph", graph}, {"task", task.name}}, kSeconds)),
      queue_length(
          registry.gauge("jigsaw_queue_length", "Requests in the queue.", {{"graph", graph}, {"task", task.name}})),
      queue_age(registry.gauge("jigsaw_queue_age_seconds",
                               "Time that the request at the head of the queue has waited. 0 if the queue is empty.",
                               {{"graph", graph}, {"task", task.name}})),
      headroom(registry.gauge("jigsaw_queue_headroom_seconds",
                              "Time until the deadline of the request at the head of the queue. 0 if the queue is "
                              "empty or the request has no deadline.",
                              {{"graph", graph}, {"task", task.name}})),
      slots(registry.gauge("jigsaw_slots", "Batches that the task's workers can run at a time (their slots).",
                           {{"graph", graph}, {"task", task.name}})),
      slots_busy(
          registry.gauge("jigsaw_slots_busy",
                         "Slots in use, by batches of any graph that shares the workers. A batch that waits at a "
                         "worker for its slot is not counted.",
                         {{"graph", graph}, {"task", task.name}})) {
  for (size_t reason = 0; reason < kReasons; reason++)
    refused[reason] = &registry.counter("jigsaw_refused_total", "Requests that failed at the task, by reason.",
                                        {{"graph", graph}, {"task", task.name}, {"reason", kReasonNames[reason]}});
  if (task.condition) {
    checked = &registry.counter("jigsaw_condition_checked_total",
                                "Requests whose condition was evaluated. Only for a task with `when`.",
                                {{"graph", graph}, {"task", task.name}});
    held = &registry.counter("jigsaw_condition_held_total",
                             "Requests whose condition held. This divided by `jigsaw_condition_checked_total` is the "
                             "condition's probability.",
                             {{"graph", graph}, {"task", task.name}});
  }
  std::vector<std::string> names = task.variants;
  names.emplace_back("unknown");
  for (const std::string& variant : names) {
    Labels labels = {{"graph", graph}, {"task", task.name}, {"variant", variant}};
    VariantMetrics metrics{
        &registry.histogram("jigsaw_batch_seconds",
                            "Time of answered batches at their workers, including the transfer there and back, but not "
                            "the time for which a worker was still busy with the batch before. A stop of the gateway, "
                            "as by SIGSTOP, adds at most 0.5 s.",
                            labels, kSeconds),
        &registry.histogram("jigsaw_batch_items", "Number of items in answered batches.", labels, kItems),
        {}};
    for (const OutputSpec& output : task.outputs) {
      if (!output.yields) continue;
      Labels producer = producer_labels(graph, task, variant, output.name);
      metrics.yields.emplace_back(
          &registry.counter("jigsaw_yield_items_total",
                            "Items for which the task made an output with rows that another task iterates over.",
                            producer),
          &registry.counter("jigsaw_yield_rows_total",
                            "Rows of outputs with rows that another task iterates over. This divided by "
                            "`jigsaw_yield_items_total` is the variant's mean yield.",
                            producer));
    }
    variants.push_back(std::move(metrics));
  }
}

ServiceMetrics::ServiceMetrics(MetricRegistry& registry, const std::string& graph, const std::string& task,
                               const RouteEntry& entry) {
  for (const auto& [items, ms] : entry.service_ms) {
    Labels labels = {{"graph", graph},
                     {"task", task},
                     {"variant", entry.variant},
                     {"worker", entry.worker},
                     {"batch", std::to_string(items)}};
    sizes.push_back(
        {items,
         &registry.counter("jigsaw_service_batches_total",
                           "Answered batches of a worker, if its model has a profile. `batch` is the smallest profiled "
                           "batch size that holds the batch.",
                           labels),
         &registry.counter(
             "jigsaw_service_seconds_total",
             "Time of the batches in `jigsaw_service_batches_total` at the worker, as in `jigsaw_batch_seconds`.",
             labels),
         &registry.counter("jigsaw_service_profiled_seconds_total",
                           "Time that the batches in `jigsaw_service_batches_total` take by the profile. "
                           "`jigsaw_service_seconds_total` divided by this is how much slower the worker is than its "
                           "profile; `profiles check --live` does it for all workers.",
                           labels)});
  }
}

void ServiceMetrics::add(int64_t items, double took, double profiled) const {
  if (sizes.empty()) return;
  auto size = std::find_if(sizes.begin(), sizes.end(), [&](const Size& each) { return each.items >= items; });
  if (size == sizes.end()) --size;
  size->batches->add(1);
  size->seconds->add(took / 1e9);
  size->profiled_seconds->add(profiled / 1e9);
}

void TaskMetrics::clear_gauges() {
  for (Metric* gauge : {&queue_length, &queue_age, &headroom, &slots, &slots_busy}) gauge->set(0);
}

}  // namespace jigsaw
