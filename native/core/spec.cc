#include "core/spec.h"

#include <algorithm>
#include <map>
#include <set>

#include "core/generation.h"
#include "core/json.h"

namespace jigsaw {
namespace {

// Maximum duration in milliseconds: a hundred days. A Time can hold many times this.
constexpr double kMaxMs = 100.0 * 24 * 3600 * 1000;

std::string in(std::string_view where, std::string_view member) {
  return std::string(where) + "." + std::string(member);
}

std::string in(std::string_view where, size_t index) { return std::string(where) + "[" + std::to_string(index) + "]"; }

const std::string& name_at(const Json& json, std::string_view member, std::string_view where) {
  const std::string& name = json.at(member, where).string(in(where, member));
  if (name.empty() || name == "." || name == ".." || name.find('/') != std::string::npos ||
      name.find('\0') != std::string::npos)
    throw FormatError(in(where, member) + " is not a name");
  return name;
}

double positive(const Json& json, std::string_view member, std::string_view where) {
  double value = json.at(member, where).number(in(where, member));
  if (!(value > 0)) throw FormatError(in(where, member) + " is not above 0");
  if (value > kMaxMs) throw FormatError(in(where, member) + " is too long");
  return value;
}

bool flag(const Json& json, std::string_view member, std::string_view where, bool otherwise) {
  const Json* found = json.find(member);
  return found ? found->boolean(in(where, member)) : otherwise;
}

Shape read_shape(const Json& json, std::string_view where) {
  Shape shape;
  for (const Json& dim : json.array(where)) {
    int64_t value = dim.integer(where);
    if (value < -1) throw FormatError(std::string(where) + " has a dimension below -1");
    shape.push_back(value);
  }
  return shape;
}

class SpecReader {
 public:
  explicit SpecReader(const Json& json) : json_(json) {}

  FrontSpec read() {
    int64_t version = json_.at("version", "spec").integer("spec.version");
    if (version != kSpecVersion)
      throw FormatError("spec.version is " + std::to_string(version) + ", but this backend reads version " +
                        std::to_string(kSpecVersion) + "; compile and deploy with the same release");
    spec_.graph = name_at(json_, "graph", "spec");
    spec_.slo_ms = positive(json_, "slo_ms", "spec");
    spec_.split = flag(json_, "split", "spec", false);
    spec_.clock = flag(json_, "clock", "spec", false);
    spec_.blaming = flag(json_, "blaming", "spec", false);
    if (const Json* overload = json_.find("overload")) {
      const std::string& kind = overload->string("spec.overload");
      if (kind != "refuse" && kind != "queue") throw FormatError("spec.overload is neither refuse nor queue: " + kind);
      spec_.queue_overload = kind == "queue";
    }
    if (const Json* capacity = json_.find("capacity_rps")) spec_.capacity_rps = capacity->number("spec.capacity_rps");
    if (const Json* most = json_.find("most_requests"))
      spec_.max_requests = size_t(std::max<int64_t>(1, most->integer("spec.most_requests")));
    if (const Json* most = json_.find("most_bytes"))
      spec_.max_bytes = size_t(std::max<int64_t>(1, most->integer("spec.most_bytes")));
    read_inputs();
    const auto& tasks = json_.at("tasks", "spec").array("spec.tasks");
    for (size_t i = 0; i < tasks.size(); i++) read_task(tasks[i], in("spec.tasks", i));
    if (spec_.tasks.empty()) throw FormatError("spec.tasks is empty");
    if (spec_.clock && spec_.tasks.size() != 1) throw FormatError("spec.clock is set for more than one task");
    read_outputs();
    return std::move(spec_);
  }

 private:
  size_t add(const std::string& name, std::string_view where) {
    auto [at, inserted] = index_.emplace(name, spec_.tensors.size());
    if (!inserted) throw FormatError(std::string(where) + " defines tensor " + name + " a second time");
    spec_.tensors.push_back(name);
    return at->second;
  }

  size_t find(const Json& json, std::string_view where) {
    const std::string& name = json.string(where);
    auto found = index_.find(name);
    if (found == index_.end())
      throw FormatError(std::string(where) + " names a tensor that no earlier task produces: " + name);
    return found->second;
  }

  void read_inputs() {
    const auto& inputs = json_.at("inputs", "spec").array("spec.inputs");
    for (size_t i = 0; i < inputs.size(); i++) {
      std::string where = in("spec.inputs", i);
      BoundaryTensor input;
      input.read(inputs[i], where);
      input.tensor = add("inputs." + input.name, where);
      spec_.inputs.push_back(std::move(input));
    }
    if (spec_.inputs.empty()) throw FormatError("spec.inputs is empty");
  }

  void read_outputs() {
    const auto& outputs = json_.at("outputs", "spec").array("spec.outputs");
    for (size_t i = 0; i < outputs.size(); i++) {
      std::string where = in("spec.outputs", i);
      BoundaryTensor output;
      output.read(outputs[i], where);
      output.tensor = find(outputs[i].at("tensor", where), in(where, "tensor"));
      spec_.outputs.push_back(std::move(output));
    }
    if (spec_.outputs.empty()) throw FormatError("spec.outputs is empty");
  }

  void read_task(const Json& json, const std::string& where) {
    TaskSpec task;
    task.name = name_at(json, "name", where);
    task.route = name_at(json, "route", where);
    const std::string& mode = json.at("mode", where).string(in(where, "mode"));
    if (mode == "stack")
      task.mode = Mode::kStack;
    else if (mode == "rows")
      task.mode = Mode::kRows;
    else if (mode == "items")
      task.mode = Mode::kItems;
    else
      throw FormatError(in(where, "mode") + " is not stack, rows or items: " + mode);
    const auto& inputs = json.at("inputs", where).array(in(where, "inputs"));
    for (size_t i = 0; i < inputs.size(); i++) {
      std::string at = in(in(where, "inputs"), i);
      InputSpec input;
      input.read(inputs[i], at);
      input.iterated = flag(inputs[i], "iterated", at, false);
      if (input.iterated && task.mode != Mode::kRows)
        throw FormatError(in(at, "iterated") + " is only allowed in mode rows");
      // Items of different sizes that are stacked would be read as each other's values.
      if (task.mode == Mode::kStack && std::find(input.shape.begin(), input.shape.end(), -1) != input.shape.end())
        throw FormatError(in(at, "shape") + " varies, which is only allowed in modes rows and items");
      input.tensor = find(inputs[i].at("tensor", at), in(at, "tensor"));
      task.inputs.push_back(std::move(input));
    }
    if (task.inputs.empty()) throw FormatError(in(where, "inputs") + " is empty");
    if (const Json* condition = json.find("condition"); condition && !condition->is_null())
      task.condition = read_condition(*condition, in(where, "condition"));
    if (task.condition && task.mode != Mode::kRows)
      throw FormatError(in(where, "condition") + " is only allowed in mode rows");
    const auto& outputs = json.at("outputs", where).array(in(where, "outputs"));
    for (size_t i = 0; i < outputs.size(); i++) {
      std::string at = in(in(where, "outputs"), i);
      OutputSpec output;
      output.read(outputs[i], at);
      output.yields = flag(outputs[i], "yields", at, false);
      if (output.yields && output.shape.empty())
        throw FormatError(in(at, "shape") + " has no dimension of rows, but the output yields rows");
      output.tensor = add(task.name + "." + output.name, at);
      task.outputs.push_back(std::move(output));
    }
    if (task.outputs.empty()) throw FormatError(in(where, "outputs") + " is empty");
    if (const Json* counts = json.find("counts"))
      for (const auto& [name, of] : counts->object(in(where, "counts")).members()) read_count(task, name, of, where);
    if (const Json* variants = json.find("variants"))
      for (const Json& variant : variants->array(in(where, "variants")))
        task.variants.push_back(variant.string(in(where, "variants")));
    task.step = flag(json, "step", where, false);
    task.retry = flag(json, "retry", where, true);
    task.entry = flag(json, "entry", where, false);
    if (const Json* rest = json.find("rest_ms"))
      task.rest_ms = std::clamp(rest->number(in(where, "rest_ms")), 0.0, kMaxMs);
    if (const Json* followers = json.find("followers"))
      for (const Json& follower : followers->array(in(where, "followers")))
        task.followers.push_back(follower.string(in(where, "followers")));
    task.deadline_ms = positive(json, "deadline_ms", where);
    for (const TaskSpec& other : spec_.tasks)
      if (other.name == task.name) throw FormatError(where + " has the name of another task: " + task.name);
    spec_.tasks.push_back(std::move(task));
  }

  void read_count(TaskSpec& task, const std::string& name, const Json& of, const std::string& where) {
    const std::string& output = of.string(in(where, "counts"));
    for (size_t i = 0; i < task.outputs.size(); i++)
      if (task.outputs[i].name == output) {
        if (task.outputs[i].shape.empty())
          throw FormatError(in(where, "counts") + " counts rows of a scalar: " + output);
        task.counts.push_back({name, i, add(task.name + "." + name, where)});
        return;
      }
    throw FormatError(in(where, "counts") + " counts rows of an unknown output: " + output);
  }

  std::unique_ptr<ConditionSpec> read_condition(const Json& json, const std::string& where) {
    auto condition = std::make_unique<ConditionSpec>();
    condition->tensor = find(json.at("tensor", where), in(where, "tensor"));
    const Json *above = json.find("above"), *below = json.find("below");
    bool has_above = above && !above->is_null(), has_below = below && !below->is_null();
    if (has_above == has_below) throw FormatError(where + " needs exactly one of above and below");
    condition->above = has_above;
    condition->bound = (has_above ? above : below)->number(where);
    return condition;
  }

  const Json& json_;
  FrontSpec spec_;
  std::map<std::string, size_t> index_;
};

Durations read_durations(const Json& json, std::string_view member, std::string_view where) {
  Durations durations;
  const Json* found = json.find(member);
  if (!found) return durations;
  for (const auto& [key, value] : found->object(in(where, member)).members()) {
    int64_t batch = 0;
    for (char c : key) {
      if (c < '0' || c > '9' || batch > 1'000'000)
        throw FormatError(in(where, member) + " has an invalid batch size: " + key);
      batch = 10 * batch + (c - '0');
    }
    double duration_ms = value.number(in(where, member));
    if (batch < 1 || !(duration_ms > 0) || duration_ms > kMaxMs)
      throw FormatError(in(where, member) + " has an invalid duration for batch " + key);
    durations.emplace_back(batch, duration_ms);
  }
  std::sort(durations.begin(), durations.end());
  return durations;
}

RouteEntry read_entry(const Json& json, const std::string& where) {
  RouteEntry entry;
  entry.worker = name_at(json, "worker", where);
  entry.model = name_at(json, "model", where);
  auto count = [&](std::string_view member) {
    int64_t value = json.at(member, where).integer(in(where, member));
    if (value < 1 || value > 1'000'000) throw FormatError(in(where, member) + " is not a positive count");
    return value;
  };
  entry.batch = count("batch");
  entry.slots = count("slots");
  if (const Json* variant = json.find("variant")) entry.variant = variant->string(in(where, "variant"));
  if (const Json* share = json.find("share")) {
    entry.share = share->number(in(where, "share"));
    if (entry.share < 0 || entry.share > 1) throw FormatError(in(where, "share") + " is not from 0 to 1");
  }
  if (const Json* tokens = json.find("tokens")) {
    entry.tokens = tokens->integer(in(where, "tokens"));
    if (entry.tokens < 0 || entry.tokens > 1000) throw FormatError(in(where, "tokens") + " is not a count");
  }
  entry.pads = flag(json, "pads", where, false);
  entry.remote = flag(json, "remote", where, false);
  if (const Json* node = json.find("node")) entry.node = node->string(in(where, "node"));
  entry.service_ms = read_durations(json, "service_ms", where);
  entry.deadline_ms = read_durations(json, "deadline_ms", where);
  if (const Json* slo = json.find("slo_ms"); slo && slo->number(in(where, "slo_ms")) != 0)
    entry.slo_ms = positive(json, "slo_ms", where);
  if (const Json* generations = json.find("generations")) {
    const auto& numbers = generations->array(in(where, "generations"));
    for (size_t i = 0; i < numbers.size(); i++) {
      int64_t number = numbers[i].integer(in(in(where, "generations"), i));
      if (number < 0) throw FormatError(in(in(where, "generations"), i) + " is below 0");
      entry.generations.push_back(number);
    }
  }
  if (const Json* weights = json.find("weights")) {
    const auto& values = weights->array(in(where, "weights"));
    for (size_t i = 0; i < values.size(); i++) {
      entry.weights.push_back(values[i].number(in(in(where, "weights"), i)));
      if (!(entry.weights[i] >= 0 && entry.weights[i] <= 1))
        throw FormatError(in(in(where, "weights"), i) + " is not from 0 to 1");
    }
    if (!values.empty() && values.size() != entry.generations.size())
      throw FormatError(in(where, "weights") + " does not have a value for each generation");
  }
  entry.closed = flag(json, "closed", where, false);
  return entry;
}

}  // namespace

void TensorSpec::read(const Json& json, std::string_view where) {
  name = name_at(json, "name", where);
  const std::string& dtype = json.at("dtype", where).string(in(where, "dtype"));
  type = data_type(dtype);
  if (type == DataType::kInvalid) throw FormatError(in(where, "dtype") + " is not a data type: " + dtype);
  shape = read_shape(json.at("shape", where), in(where, "shape"));
}

bool TensorSpec::fixed() const {
  if (type == DataType::kBytes) return false;
  return std::none_of(shape.begin(), shape.end(), [](int64_t dim) { return dim < 0; });
}

bool TaskSpec::one_by_one() const {
  if (mode == Mode::kItems) return true;
  return std::any_of(outputs.begin(), outputs.end(), [](const OutputSpec& output) { return output.yields; });
}

FrontSpec FrontSpec::parse(std::string_view text) {
  Json json = Json::parse(text);
  return SpecReader(json.object("spec")).read();
}

Route parse_route(std::string_view text) {
  Json json = Json::parse(text);
  int64_t version = json.at("version", "route").integer("route.version");
  if (version != kRouteVersion) throw FormatError("route.version is not " + std::to_string(kRouteVersion));
  Route route;
  if (const Json* epoch = json.find("epoch")) {
    route.epoch = epoch->integer("route.epoch");
    if (route.epoch < 0) throw FormatError("route.epoch is below 0");
  }
  const auto& workers = json.at("workers", "route").array("route.workers");
  for (size_t i = 0; i < workers.size(); i++) route.entries.push_back(read_entry(workers[i], in("route.workers", i)));
  std::set<int64_t> generations;
  for (const RouteEntry& entry : route.entries) generations.insert(entry.generations.begin(), entry.generations.end());
  if (generations.size() > kMaxGenerations)
    throw FormatError("route.workers names more than " + std::to_string(kMaxGenerations) + " generations");
  return route;
}

}  // namespace jigsaw
