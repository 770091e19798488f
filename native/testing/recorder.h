// A host that keeps what the core logs and counts, for tests to look at.
#pragma once

#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "core/host.h"

namespace jigsaw {

class Recorder : public Host {
 public:
  void log(LogLevel level, const std::string& text) override;
  std::unique_ptr<Metric> metric(MetricKind kind, const std::string& name, const std::string& help,
                                 const Labels& labels, const std::vector<double>& buckets) override;

  // Logs and metrics as JSON: {"logs": [[level, text], ...], "metrics": [{"name", "kind", "labels", "value",
  // "count"}]}.
  std::string json() const;

 private:
  struct Series {
    MetricKind kind;
    std::string name;
    Labels labels;
    double value = 0;   // Of a counter or gauge; the sum of a histogram.
    int64_t count = 0;  // Values that a histogram observed.
  };
  class RecordedMetric;

  mutable std::mutex mutex_;
  std::vector<std::pair<LogLevel, std::string>> logs_;
  std::deque<Series> series_;  // Series stay where they are while others are added.
};

}  // namespace jigsaw
