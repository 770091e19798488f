// What the data plane counts, as series of the host's metrics.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/host.h"
#include "core/spec.h"

namespace jigsaw {

// Series that outlive the fronts that count in them: a front of the next generation goes on where the last one stopped.
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

// Why requests fail at a task.
enum class Reason : uint8_t { kLate, kFull, kWorker, kRequest, kModel, kCode, kCancelled };
inline constexpr size_t kReasons = 7;

struct GraphMetrics {
  GraphMetrics(MetricRegistry& registry, const std::string& graph);

  Metric& arrivals;
  Metric& capacity;
  Metric& slo_met;
  Metric& slo_missed;
  Metric& slo_failed;
};

// Series of one variant of a task.
struct VariantMetrics {
  Metric* seconds;
  Metric* items;
  std::vector<std::pair<Metric*, Metric*>> yields;  // For each output with rows: items that made it, and its rows.
};

struct TaskMetrics {
  TaskMetrics(MetricRegistry& registry, const std::string& graph, const TaskSpec& task);

  // Says that nothing waits and nothing is there: the task is gone.
  void clear_gauges();

  Metric& requests;
  Metric* refused[kReasons];
  Metric& again;
  Metric& lost;
  Metric& sent_bytes;
  Metric& received_bytes;
  Metric* checked = nullptr;  // Of a conditional task.
  Metric* held = nullptr;
  Metric& wait;
  Metric& dispatch;
  Metric& queue_length;
  Metric& queue_age;
  Metric& headroom;
  Metric& slots;
  Metric& slots_busy;
  std::vector<VariantMetrics> variants;  // As the task's, and one for those it does not know.
};

}  // namespace jigsaw
