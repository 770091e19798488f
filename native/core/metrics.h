// Metrics of the data plane. The tables of docs/reference/metrics.md have the helps of all of them.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/host.h"
#include "core/spec.h"

namespace jigsaw {

// Owner of all series except those of generations. Series outlive the fronts that use them, so that a front of the next
// generation continues the counters of the previous one. Owned by the engine; guarded by its lock. The series
// themselves are thread-safe.
class MetricRegistry {
 public:
  explicit MetricRegistry(Host& host) : host_(host) {}

  Metric& counter(const std::string& name, const std::string& help, const Labels& labels);
  Metric& gauge(const std::string& name, const std::string& help, const Labels& labels);
  Metric& histogram(const std::string& name, const std::string& help, const Labels& labels,
                    const std::vector<double>& buckets);

 private:
  Metric& find(MetricKind kind, const std::string& name, const std::string& help, const Labels& labels,
               const std::vector<double>& buckets);

  Host& host_;
  std::map<std::pair<std::string, Labels>, std::unique_ptr<Metric>> series_;
};

// Reasons for which requests fail at a task: the values of the label `reason`.
enum class Reason : uint8_t { kLate, kFull, kWorker, kRequest, kModel, kCode, kCancelled };
inline constexpr size_t kReasons = 7;

// Results of requests to a graph: answered within the latency SLO, later, or not at all.
enum class Outcome : uint8_t { kMet, kMissed, kFailed };
inline constexpr size_t kOutcomes = 3;

// Series of a graph.
struct GraphMetrics {
  GraphMetrics(MetricRegistry& registry, const std::string& graph);

  Metric& arrivals;
  Metric& capacity;
  Metric* slo[kOutcomes];
};

// Series of a generation of a graph. They end with the generation, because each new plan brings another one.
struct GenerationMetrics {
  GenerationMetrics(Host& host, const std::string& graph, int64_t generation);

  std::unique_ptr<Metric> requests[kOutcomes];
  std::unique_ptr<Metric> seconds;
};

// Series of one variant of a task.
struct VariantMetrics {
  Metric* seconds;
  Metric* items;
  std::vector<std::pair<Metric*, Metric*>> yields;  // (items, rows) counters of each output that yields rows.
};

// Series of a model at one worker, by which its service times are compared with its profile: some for each profiled
// batch size. None without a profile.
struct ServiceMetrics {
  ServiceMetrics(MetricRegistry& registry, const std::string& graph, const std::string& task, const RouteEntry& entry);

  // Records the service time of a batch, in nanoseconds, at the next profiled size.
  void add(int64_t items, double took, double profiled) const;

  struct Size {
    int64_t items;
    Metric* batches;
    Metric* seconds;
    Metric* profiled_seconds;
  };
  std::vector<Size> sizes;
};

// Series of a task.
struct TaskMetrics {
  TaskMetrics(MetricRegistry& registry, const std::string& graph, const TaskSpec& task);

  // Sets all gauges to 0, because the task has been removed.
  void clear_gauges();

  Metric& requests;
  Metric* refused[kReasons];
  Metric& again;
  Metric& lost;
  Metric& sent_bytes;
  Metric& received_bytes;
  Metric* checked = nullptr;  // For a conditional task; else nullptr, as `held`.
  Metric* held = nullptr;
  Metric& wait;
  Metric& dispatch;
  Metric& queue_length;
  Metric& queue_age;
  Metric& headroom;
  Metric& slots;
  Metric& slots_busy;
  std::vector<VariantMetrics> variants;  // In the order of the task's variants, then one for unknown variants.
};

}  // namespace jigsaw
