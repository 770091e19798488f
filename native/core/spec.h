// What the compiler writes into a front's configuration: a task graph, or one task of it, and how to carry it out.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/base.h"

namespace jigsaw {

// Version of the specification that this library reads.
inline constexpr int64_t kSpecVersion = 2;

// Optional input and output of a one-task front: INT64 [arrival, deadline] in nanoseconds of CLOCK_MONOTONIC. It
// carries both from step to step of an ensemble or a BLS pipeline.
inline constexpr const char* kClockTensor = "JIGSAW_CLOCK";

// Output of a model that our runners serve: the token of the call, once for each item.
inline constexpr std::string_view kTokenTensor = "JIGSAW_TOKEN";

// Prefix of the output of a model that tells how many rows of another output are an item's own: the rows of a batch's
// items are filled up to the most that one has.
inline constexpr std::string_view kRowsPrefix = "JIGSAW_ROWS.";

// Output of a python step's model: 1 where the step answers the whole request. Its answer is in outputs that have this
// prefix before the names of the graph's outputs.
inline constexpr std::string_view kAnsweredTensor = "JIGSAW_ANSWERED";
inline constexpr std::string_view kAnswerPrefix = "JIGSAW_ANSWER.";

// How a task's requests become calls of a worker's model.
enum class Mode : uint8_t {
  kStack,  // Fixed shapes: items are joined along the batch dimension.
  kRows,   // Items are rows: iterated inputs are [B, R, ...], rows of many requests are joined.
  kItems,  // Shapes vary between items: each item is a call of its own.
};

struct TensorSpec {
  std::string name;
  DataType type = DataType::kInvalid;
  Shape shape;  // Without a batch dimension; -1 where it varies.

  bool fixed() const;
};

struct InputSpec : TensorSpec {  // Type and shape are those of one call.
  bool iterated = false;         // One call gets one row of the tensor.
  size_t tensor = 0;             // Index of the graph's tensor.
};

struct OutputSpec : TensorSpec {
  bool yields = false;  // Another task goes through its rows, whose number varies from call to call.
  size_t tensor = 0;
};

struct CountSpec {  // An output that the front makes itself: the number of rows of another output, call by call.
  std::string name;
  size_t output = 0;
  size_t tensor = 0;
};

struct ConditionSpec {
  size_t tensor = 0;
  bool above = true;  // Whether the task runs for values above the bound, or below it.
  double bound = 0;
};

struct TaskSpec {
  std::string name;
  std::string route;  // Name of the route's file, without ".json".
  Mode mode = Mode::kStack;
  std::vector<InputSpec> inputs;
  std::vector<OutputSpec> outputs;
  std::vector<CountSpec> counts;
  std::unique_ptr<ConditionSpec> condition;
  std::vector<std::string> variants;
  bool step = false;   // Marks a python step, whose failures carry the step's own message.
  bool retry = true;   // Allows to send a call once more that may have been executed.
  bool entry = false;  // Whether arrivals at the graph are counted here.
  double rest_ms = 0;  // Expected time of the tasks that follow on the longest path, while they are not there.
  std::vector<std::string> followers;  // Of a one-task front: tasks that take a tensor of it, in fronts of their own.
  double deadline_ms = 0;              // Deadline of a call where the route states none.

  // Whether each item is a call of its own, since answers of different shapes do not stack.
  bool one_by_one() const;
};

struct FrontOutput : TensorSpec {
  size_t tensor = 0;
};

struct FrontSpec {
  std::string graph;
  double slo_ms = 0;
  bool queue_overload = false;  // Requests wait in place of being refused once the SLO cannot be met.
  bool split = false;           // Items of a client's batch go their own ways.
  bool clock = false;           // A one-task front, which reads and hands on `kClockTensor`.
  bool blaming = false;         // Messages of failures begin with whose fault they are, for callers that learn no code.
  double capacity_rps = 0;      // Requests a second that the plan carries.
  size_t most_requests = 100'000;
  size_t most_bytes = size_t{1} << 30;
  std::vector<FrontOutput> inputs;
  std::vector<FrontOutput> outputs;
  std::vector<TaskSpec> tasks;       // In topological order.
  std::vector<std::string> tensors;  // Names of all tensors of the graph, such as "detect.CROPS".

  // Throws FormatError, which says where and what.
  static FrontSpec parse(std::string_view text);
};

// How long a batch of some size takes, by the profile: (batch size, milliseconds), ascending.
using Durations = std::vector<std::pair<int64_t, double>>;

// A model on a worker that may be sent batches.
struct RouteEntry {
  std::string worker;
  std::string model;
  std::string variant;
  std::string address;    // host:port of a worker on another host; empty for its Unix socket.
  int64_t batch = 1;      // Most items in one call.
  int64_t slots = 1;      // Batches under way at a time.
  double share = 0;       // Of the task's items that the variant is to take; 0 where that does not matter.
  int64_t tokens = 0;     // Outputs that carry the call's token; 0 for a native backend.
  bool pads = false;      // Whether items with different numbers of rows make one batch; see `kRowsPrefix`.
  Durations service_ms;   // Usual time of a batch.
  Durations deadline_ms;  // After which a call counts as hanging.

  bool operator==(const RouteEntry&) const = default;
};

inline constexpr int64_t kRouteVersion = 2;

// Reads the content of a route's file. Throws FormatError.
std::vector<RouteEntry> parse_route(std::string_view text);

}  // namespace jigsaw
