// What the core needs from whoever it runs in: tritonserver, or a test.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/base.h"

namespace jigsaw {

// A tensor. The first dimension of its shape counts the items of a request's batch.
struct Value {
  DataType type = DataType::kInvalid;
  Shape shape;
  const char* data = nullptr;
  size_t size = 0;
  std::shared_ptr<char[]> owner;  // The memory, where nobody else owns it.
};

// When a request's work was done, for statistics.
struct Timing {
  Time arrival = 0;
  Time first_sent = 0;     // 0 where nothing was sent.
  Time last_received = 0;  // 0 where nothing was received.
  int64_t items = 1;
};

// A client's request. The core calls `respond` once, then `release` once, after which neither the request nor its
// inputs exist.
class Request {
 public:
  virtual ~Request() = default;

  // The client's id; empty for none.
  virtual std::string_view id() const = 0;

  // Whether the client is gone.
  virtual bool cancelled() const = 0;

  // Memory of the response for an output of the front. Called by several threads, once for each output.
  // Throws std::runtime_error where there is none.
  virtual char* allocate(size_t output, DataType type, const Shape& shape, size_t size) = 0;

  // Sends the response: the outputs that were allocated, or the failure.
  virtual void respond(const Failure* failure, const Timing& timing) = 0;

  virtual void release() = 0;
};

// One series of a metric. Any thread may call it.
class Metric {
 public:
  virtual ~Metric() = default;
  virtual void add(double value) = 0;      // Counters.
  virtual void set(double value) = 0;      // Gauges.
  virtual void observe(double value) = 0;  // Histograms.
};

enum class MetricKind : uint8_t { kCounter, kGauge, kHistogram };

using Labels = std::vector<std::pair<std::string, std::string>>;

enum class LogLevel : uint8_t { kInfo, kWarning, kError };

class Host {
 public:
  virtual ~Host() = default;
  virtual void log(LogLevel level, const std::string& text) = 0;
  virtual std::unique_ptr<Metric> metric(MetricKind kind, const std::string& name, const std::string& help,
                                         const Labels& labels, const std::vector<double>& buckets) = 0;
};

}  // namespace jigsaw
