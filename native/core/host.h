// Interfaces that the core requires from the program it runs in: tritonserver, or a test.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/base.h"

namespace jigsaw {

struct TraceContext;

// A tensor. The first dimension of its shape is the number of items in a request's batch.
struct Value {
  DataType type = DataType::kInvalid;
  Shape shape;
  const char* data = nullptr;
  size_t size = 0;
  std::shared_ptr<char[]> owner;  // Keeps the memory alive; empty if the request owns it.
};

// Times of a request, for statistics.
struct Timing {
  Time arrival = 0;
  Time first_sent = 0;     // 0 if nothing was sent.
  Time last_received = 0;  // 0 if nothing was received.
  int64_t items = 1;
};

// A client's request. The host creates it and passes it to `Front::submit`. The core then calls `respond` exactly once
// and `release` exactly once; after `release` neither the request nor its inputs may be used. Any thread of the core
// may call it.
class Request {
 public:
  virtual ~Request() = default;

  // Returns the client's id; empty if it has none.
  virtual std::string_view id() const = 0;

  // Returns the context of its trace; nullptr if it is not sampled.
  virtual const TraceContext* trace() const { return nullptr; }

  // Returns true if the client has cancelled the request.
  virtual bool cancelled() const = 0;

  // Returns memory of the response for an output of the front. Several threads may call it, once for each output.
  // Throws std::runtime_error if there is no memory.
  virtual char* allocate(size_t output, DataType type, const Shape& shape, size_t size) = 0;

  // Sends the response: the allocated outputs if `failure` is nullptr, else the failure.
  virtual void respond(const Failure* failure, const Timing& timing) = 0;

  // Ends the use of the request by the core.
  virtual void release() = 0;
};

// One series of a metric. Any thread may call it. Each function applies to one kind of metric.
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

// Log and metrics of the program that the core runs in. It must outlive the engine; any thread may call it.
class Host {
 public:
  virtual ~Host() = default;
  virtual void log(LogLevel level, const std::string& text) = 0;
  virtual std::unique_ptr<Metric> metric(MetricKind kind, const std::string& name, const std::string& help,
                                         const Labels& labels, const std::vector<double>& buckets) = 0;
};

}  // namespace jigsaw
