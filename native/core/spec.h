// Specification of a front, which the compiler writes into the model's configuration: a task graph, or one task of it.
// Also the format of route files, which list the workers of a task.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/base.h"

namespace jigsaw {

class Json;

// Version of the specification that this library reads.
inline constexpr int64_t kSpecVersion = 2;

// Name of an optional input and output of a one-task front: INT64 [arrival, deadline] in nanoseconds of
// CLOCK_MONOTONIC. The tensor carries both times from step to step of an ensemble or a BLS pipeline.
inline constexpr const char* kClockTensor = "JIGSAW_CLOCK";

// Name of an output of models that our runners serve: the token of the call, repeated for each item.
inline constexpr std::string_view kTokenTensor = "JIGSAW_TOKEN";

// Prefix of the name of an output that counts the rows of each item in another output. In a batch, the rows of all
// items are padded to the largest number of rows.
inline constexpr std::string_view kRowsPrefix = "JIGSAW_ROWS.";

// Name of an output of a Python step's model: 1 if the step answers the whole request. The names of the outputs with
// that answer are kAnswerPrefix followed by the names of the graph's outputs.
inline constexpr std::string_view kAnsweredTensor = "JIGSAW_ANSWERED";
inline constexpr std::string_view kAnswerPrefix = "JIGSAW_ANSWER.";

// Method by which the requests of a task become calls of a worker's model.
enum class Mode : uint8_t {
  kStack,  // Shapes are fixed: items are stacked along the batch dimension.
  kRows,   // Items are rows: iterated inputs are [B, R, ...]; rows of several requests share a batch.
  kItems,  // Shapes vary between items: each item is a separate call.
};

// Name, type and shape of a tensor.
struct TensorSpec {
  std::string name;
  DataType type = DataType::kInvalid;
  Shape shape;  // Dimensions without the batch dimension; -1 for a dimension that varies.

  // Reads name, type and shape from their JSON, which is at `where` in its document. Throws FormatError.
  void read(const Json& json, std::string_view where);

  // Returns true if all values of the tensor have the same size.
  bool fixed() const;
};

// Input of a task. Type and shape are those of one item.
struct InputSpec : TensorSpec {
  bool iterated = false;  // True if each item is one row of the tensor.
  size_t tensor = 0;      // Index of the tensor in the graph.
};

// Output of a task. Type and shape are those of one item.
struct OutputSpec : TensorSpec {
  bool yields = false;  // True if another task iterates over the rows, whose number varies from call to call.
  size_t tensor = 0;
};

// An output that the front computes itself: the number of rows of another output for each call.
struct CountSpec {
  std::string name;
  size_t output = 0;
  size_t tensor = 0;
};

// Condition of a task: it runs for a request only if the one element of a tensor is above or below a bound.
struct ConditionSpec {
  size_t tensor = 0;
  bool above = true;  // True if the task runs for values above the bound, false for values below it.
  double bound = 0;
};

// A task of a front.
struct TaskSpec {
  std::string name;
  std::string route;  // Name of the route file without ".json".
  Mode mode = Mode::kStack;
  std::vector<InputSpec> inputs;
  std::vector<OutputSpec> outputs;
  std::vector<CountSpec> counts;
  std::unique_ptr<ConditionSpec> condition;
  std::vector<std::string> variants;
  bool step = false;   // True for a Python step, whose failures carry the step's own message.
  bool retry = true;   // True if a call that may have been executed may be retried.
  bool entry = false;  // True if arrivals at the graph are counted at this one-task front.
  double rest_ms = 0;  // Milliseconds that the followers on the longest path take; used while their fronts are absent.
  // Names of the tasks, in fronts of their own, that consume this one-task front's tensors.
  std::vector<std::string> followers;
  double deadline_ms = 0;  // Milliseconds until a call times out, if the route states no deadline.

  // Returns true if each item is a separate call, because answers of different shapes cannot be stacked.
  bool one_by_one() const;
};

// Input or output of a front, as clients see it.
struct BoundaryTensor : TensorSpec {
  size_t tensor = 0;
};

// Specification of a front. Immutable after parsing, so several threads may read it.
struct FrontSpec {
  std::string graph;
  double slo_ms = 0;
  bool queue_overload = false;    // True if requests wait, instead of being refused, when the SLO cannot be met.
  bool split = false;             // True if the items of a client's batch are executed as separate requests.
  bool clock = false;             // True for a one-task front, which reads and returns `kClockTensor`.
  bool blaming = false;           // True if failure messages start with the blame, for callers that see no error code.
  double capacity_rps = 0;        // Requests per second that the plan can serve.
  size_t max_requests = 100'000;  // Maximum number of requests in the queue of a task.
  size_t max_bytes = size_t{1} << 30;  // Maximum bytes of inputs in the queue of a task.
  std::vector<BoundaryTensor> inputs;
  std::vector<BoundaryTensor> outputs;
  std::vector<TaskSpec> tasks;       // In topological order.
  std::vector<std::string> tensors;  // Names of all tensors of the graph, such as "detect.CROPS".

  // Parses a specification. Throws FormatError, whose message says where the error is.
  static FrontSpec parse(std::string_view text);
};

// Duration of batches by their size: (batch size, milliseconds), in ascending order of size.
using Durations = std::vector<std::pair<int64_t, double>>;

// Entry of a route: a model on a worker that can receive batches.
struct RouteEntry {
  std::string worker;
  std::string model;
  std::string variant;
  int64_t batch = 1;      // Maximum number of items in one call.
  int64_t slots = 1;      // Maximum number of batches that the model runs at a time.
  double share = 0;       // Fraction of the task's items that the variant should receive; 0 for no preference.
  int64_t tokens = 0;     // Number of outputs that carry the call's token; 0 for a native backend.
  bool pads = false;      // True if the model pads rows, so that such items can share a batch; see `kRowsPrefix`.
  bool remote = false;    // True if the worker runs on another host, behind a proxy that listens at its socket.
  std::string node;       // Name of the host that the worker runs on; empty if it is not known.
  Durations service_ms;   // Expected service time of a batch.
  Durations deadline_ms;  // Time after which a call counts as hanging.
  double slo_ms = 0;      // Latency SLO for which the plan has this entry; 0 if it is not known.
  std::vector<int64_t> generations;  // Generations whose requests it may answer; empty for all.
  // Share of the requests that are bound to each of these generations when they arrive; empty if the first worker that
  // is free decides.
  std::vector<double> weights;
  bool closed = false;  // True if it gets only requests that no open entry's generation may answer.

  bool operator==(const RouteEntry&) const = default;
};

inline constexpr int64_t kRouteVersion = 3;

// Content of a route file.
struct Route {
  int64_t epoch = 0;  // Epoch of the controller that wrote it; 0 for none.
  std::vector<RouteEntry> entries;
};

// Parses the content of a route file. Throws FormatError.
Route parse_route(std::string_view text);

}  // namespace jigsaw
