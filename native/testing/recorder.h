// A host for tests that records logs and metrics.
#pragma once

#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "core/host.h"

namespace jigsaw {

// Must outlive the engine that uses it. Thread-safe.
class Recorder : public Host {
 public:
  void log(LogLevel level, const std::string& text) override;
  std::unique_ptr<Metric> metric(MetricKind kind, const std::string& name, const std::string& help,
                                 const Labels& labels, const std::vector<double>& buckets) override;

  // Returns logs and metrics as JSON: {"logs": [[level, text], ...], "metrics": [{"name", "help", "kind", "labels",
  // "value", "count"}]}.
  std::string json() const;

 private:
  struct Series {
    MetricKind kind;
    std::string name;
    std::string help;
    Labels labels;
    double value = 0;   // Value of a counter or gauge; sum of a histogram.
    int64_t count = 0;  // Number of values that a histogram has observed.
  };
  class RecordedMetric;

  mutable std::mutex mutex_;
  std::vector<std::pair<LogLevel, std::string>> logs_;
  std::list<Series> series_;  // A list, because series must keep their addresses.
};

}  // namespace jigsaw
