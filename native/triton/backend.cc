// The entry points of the Triton backend. Each model is a front, whose requests are passed to the core, an ONNX model,
// or the listener of a worker.
#include <algorithm>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "core/engine.h"
#include "core/front.h"
#include "core/json.h"
#include "triton/abi.h"
#include "triton/answer_gate.h"
#include "triton/calls.h"
#include "triton/listener.h"
#include "triton/onnx_model.h"

#ifndef JIGSAW_VERSION
#define JIGSAW_VERSION "unknown"
#endif
#ifndef JIGSAW_COMPILER
#define JIGSAW_COMPILER "unknown"
#endif

#define JIGSAW_TEXT_(x) #x
#define JIGSAW_TEXT(x) JIGSAW_TEXT_(x)
#define JIGSAW_EXPORT __attribute__((visibility("default")))

namespace jigsaw {
namespace {

// A series of the server. Thread-safe, as the server's functions are.
class TritonMetric : public Metric {
 public:
  explicit TritonMetric(TRITONSERVER_Metric* metric) : metric_(metric) {}
  ~TritonMetric() override { log_failure(TRITONSERVER_MetricDelete(metric_)); }
  TritonMetric(const TritonMetric&) = delete;
  TritonMetric& operator=(const TritonMetric&) = delete;
  void add(double value) override { log_failure(TRITONSERVER_MetricIncrement(metric_, value)); }
  void set(double value) override { log_failure(TRITONSERVER_MetricSet(metric_, value)); }
  void observe(double value) override { log_failure(TRITONSERVER_MetricObserve(metric_, value)); }

 private:
  TRITONSERVER_Metric* metric_;
};

// Log and metrics of the server.
class TritonHost : public Host {
 public:
  void log(LogLevel level, const std::string& text) override {
    constexpr TRITONSERVER_LogLevel kLevels[] = {TRITONSERVER_LOG_INFO, TRITONSERVER_LOG_WARN, TRITONSERVER_LOG_ERROR};
    log_message(kLevels[size_t(level)], text);
  }

  std::unique_ptr<Metric> metric(MetricKind kind, const std::string& name, const std::string& help,
                                 const Labels& labels, const std::vector<double>& buckets) override {
    constexpr TRITONSERVER_MetricKind kKinds[] = {TRITONSERVER_METRIC_KIND_COUNTER, TRITONSERVER_METRIC_KIND_GAUGE,
                                                  TRITONSERVER_METRIC_KIND_HISTOGRAM};
    auto& family = families_[name];
    if (!family) check(TRITONSERVER_MetricFamilyNew(&family, kKinds[size_t(kind)], name.c_str(), help.c_str()));
    std::vector<const TRITONSERVER_Parameter*> parameters;
    for (const auto& [key, value] : labels)
      parameters.push_back(TRITONSERVER_ParameterNew(key.c_str(), TRITONSERVER_PARAMETER_STRING, value.c_str()));
    TRITONSERVER_MetricArgs* args = nullptr;
    if (kind == MetricKind::kHistogram) {
      check(TRITONSERVER_MetricArgsNew(&args));
      check(TRITONSERVER_MetricArgsSetHistogram(args, buckets.data(), buckets.size()));
    }
    TRITONSERVER_Metric* metric = nullptr;
    TRITONSERVER_Error* error =
        args ? TRITONSERVER_MetricNewWithArgs(&metric, family, parameters.data(), parameters.size(), args)
             : TRITONSERVER_MetricNew(&metric, family, parameters.data(), parameters.size());
    for (const TRITONSERVER_Parameter* parameter : parameters)
      TRITONSERVER_ParameterDelete(const_cast<TRITONSERVER_Parameter*>(parameter));
    if (args) log_failure(TRITONSERVER_MetricArgsDelete(args));
    check(error);
    return std::make_unique<TritonMetric>(metric);
  }

 private:
  std::map<std::string, TRITONSERVER_MetricFamily*> families_;
};

// State that all models of the process share. Never destroyed, because Triton unloads backends while threads may still
// run.
struct Process {
  std::mutex mutex;
  TritonHost host;
  std::unique_ptr<Engine> shared;  // Engine of all fronts; workers have none.

  // Returns the engine, which the first front starts.
  Engine& engine() {
    std::lock_guard lock(mutex);
    if (!shared) shared = std::make_unique<Engine>(host, settings());
    return *shared;
  }

 private:
  static Settings settings() {
    if (variable("JIGSAW_RUN_DIR").empty())
      throw std::runtime_error("JIGSAW_RUN_DIR is not set; set it to the run directory before the gateway starts");
    return {variable("JIGSAW_RUN_DIR"), variable("JIGSAW_SECRET"), variable("JIGSAW_SHM_PREFIX")};
  }
};

Process& process() {
  static auto* made = new Process;
  return *made;
}

// State of a model, which is one of these.
struct Model {
  std::unique_ptr<Front> front;
  std::unique_ptr<OnnxModel> onnx;
  std::unique_ptr<Listener> listener;
};

// State of a model instance: counts its requests, because Triton may finalize an instance while a front has requests in
// flight.
struct Instance {
  std::mutex mutex;
  std::condition_variable idle;
  size_t under_way = 0;
  std::optional<RunTrace> trace;  // Trace file of an ONNX model's instance.

  void ended() {
    std::lock_guard lock(mutex);
    if (--under_way == 0) idle.notify_all();
  }
};

// Returns true if this is the name of the header, which clients may spell in any case.
bool is_header(std::string_view name, std::string_view header) {
  return std::ranges::equal(name, header, [](char a, char b) { return (a | 0x20) == b; });
}

const char* blame_prefix(Blame blame) {
  switch (blame) {
    case Blame::kRequest:
      return "request: ";
    case Blame::kModel:
      return "model: ";
    default:
      return "worker: ";
  }
}

// A request of the server. Created for each request of an execution; deletes itself on `release`.
class TritonRequest : public Request {
 public:
  TritonRequest(Front& front, TRITONBACKEND_Request* request, TRITONBACKEND_ModelInstance* instance, Instance& state,
                Time begin)
      : front_(front), request_(request), instance_(instance), state_(state), begin_(begin) {
    const char* id = nullptr;
    log_failure(TRITONBACKEND_RequestId(request_, &id));
    if (id) id_ = id;
  }

  std::string_view id() const override { return id_; }

  bool cancelled() const override { return is_cancelled(request_); }

  char* allocate(size_t output, DataType type, const Shape& shape, size_t size) override {
    return allocate(front_.spec().outputs[output].name.c_str(), type, shape, size);
  }

  void respond(const Failure* failure, const Timing& timing) override {
    timing_ = timing;
    failed_ = failure != nullptr;
    if (!failure && wants_clock_) {
      try {
        char* to = allocate(kClockTensor, DataType::kInt64, {timing.items, 2}, size_t(timing.items) * sizeof clock_);
        for (int64_t i = 0; i < timing.items; i++) memcpy(to + size_t(i) * sizeof clock_, clock_, sizeof clock_);
      } catch (const std::exception&) {
        // Without the tensor, the next step uses its own time of arrival.
      }
    }
    TRITONBACKEND_Response* response = failure ? nullptr : std::exchange(response_, nullptr);
    TRITONSERVER_Error* error = nullptr;
    if (failure) {
      std::string message = front_.spec().blaming ? blame_prefix(failure->blame) + failure->message : failure->message;
      error = TRITONSERVER_ErrorNew(code_of(failure->blame), message.c_str());
    }
    // A failure gets a new response, because other threads may still write into the outputs of the first one.
    if (!response) log_failure(TRITONBACKEND_ResponseNew(&response, request_));
    if (response)
      AnswerGate::get().send(response, error);
    else if (error)
      TRITONSERVER_ErrorDelete(error);
  }

  void release() override {
    if (response_) log_failure(TRITONBACKEND_ResponseDelete(response_));
    Time end = now();
    Time sent = timing_.first_sent ? timing_.first_sent : end,
         received = timing_.last_received ? timing_.last_received : end;
    log_failure(
        TRITONBACKEND_ModelInstanceReportStatistics(instance_, request_, !failed_, begin_, sent, received, end));
    if (!failed_)
      log_failure(TRITONBACKEND_ModelInstanceReportBatchStatistics(
          instance_, uint64_t(std::max<int64_t>(1, timing_.items)), begin_, sent, received, end));
    log_failure(TRITONBACKEND_RequestRelease(request_, TRITONSERVER_REQUEST_RELEASE_ALL));
    Instance& state = state_;
    delete this;
    state.ended();
  }

  // Passes the request to the core. The request may be deleted when this returns.
  void submit() {
    std::vector<Value> inputs;
    RequestOptions options;
    options.arrival = begin_;
    std::unique_ptr<Failure> failure;
    try {
      read(inputs, options);
    } catch (const std::exception& error) {
      failure = std::make_unique<Failure>(Failure{Blame::kRequest, error.what()});
    }
    if (failure) {
      respond(failure.get(), {begin_});
      release();
      return;
    }
    front_.submit(this, std::move(inputs), std::move(options));
  }

 private:
  char* allocate(const char* name, DataType type, const Shape& shape, size_t size) {
    std::lock_guard lock(mutex_);
    if (!response_) check(TRITONBACKEND_ResponseNew(&response_, request_));
    return output_buffer(response_, name, type, shape, size);
  }

  void read(std::vector<Value>& inputs, RequestOptions& options) {
    for (const BoundaryTensor& input : front_.spec().inputs) inputs.push_back(input_of(request_, input.name.c_str()));
    if (TRITONSERVER_Error* error = TRITONBACKEND_InferenceRequestTimeoutMicroseconds(request_, &options.timeout_us))
      TRITONSERVER_ErrorDelete(error);
    uint32_t count = 0;
    log_failure(TRITONBACKEND_RequestInputCount(request_, &count));
    if (front_.spec().clock && count > inputs.size()) {
      Value clock = input_of(request_, kClockTensor);
      if (clock.type == DataType::kInt64 && clock.size >= sizeof clock_) {
        memcpy(clock_, clock.data, sizeof clock_);
        if (clock_[0] > 0) options.arrival = Time(clock_[0]);
        if (clock_[1] > 0) options.deadline = Time(clock_[1]);
      }
    }
    if (!clock_[0]) {
      clock_[0] = int64_t(options.arrival);
      // Avoid an overflow: the timeout may be longer than an INT64 of nanoseconds.
      Time most = Time(INT64_MAX) - options.arrival;
      Time limit = options.timeout_us ? 1000 * std::min(options.timeout_us, most / 1000) : front_.slo();
      clock_[1] = int64_t(options.arrival + limit);
    }
    read_outputs(options);
    read_parameters(options);
  }

  void read_outputs(RequestOptions& options) {
    const auto& outputs = front_.spec().outputs;
    for (const std::string& name : output_names_of(request_)) {
      if (name == kClockTensor) {
        wants_clock_ = true;
        continue;
      }
      for (size_t o = 0; o < outputs.size(); o++)
        if (outputs[o].name == name) options.wanted.push_back(o);
    }
    std::sort(options.wanted.begin(), options.wanted.end());
    // The empty list stands for all outputs, which is the usual case.
    if (options.wanted.size() == outputs.size()) options.wanted.clear();
  }

  void read_parameters(RequestOptions& options) {
    uint32_t count = 0;
    log_failure(TRITONBACKEND_RequestParameterCount(request_, &count));
    for (uint32_t i = 0; i < count; i++) {
      const char* key = nullptr;
      TRITONSERVER_ParameterType type;
      const void* value = nullptr;
      check(TRITONBACKEND_RequestParameter(request_, i, &key, &type, &value));
      std::string_view name(key);
      if (type == TRITONSERVER_PARAMETER_INT && name == "jigsaw_priority") {
        int64_t priority;
        memcpy(&priority, value, sizeof priority);
        options.priority = int(std::clamp<int64_t>(priority, -1000, 1000));
      } else if (type == TRITONSERVER_PARAMETER_STRING && is_header(name, "traceparent")) {
        options.trace.parent = static_cast<const char*>(value);
      } else if (type == TRITONSERVER_PARAMETER_STRING && is_header(name, "tracestate")) {
        options.trace.state = static_cast<const char*>(value);
      }
    }
  }

  Front& front_;
  TRITONBACKEND_Request* request_;
  TRITONBACKEND_ModelInstance* instance_;
  Instance& state_;
  Time begin_;
  std::string id_;
  std::mutex mutex_;
  TRITONBACKEND_Response* response_ = nullptr;
  Timing timing_;
  int64_t clock_[2] = {0, 0};
  bool wants_clock_ = false;
  bool failed_ = false;
};

TRITONSERVER_Error* failed(const std::exception& error) {
  return TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_INVALID_ARG, error.what());
}

// Returns the state of an instance's model.
const Model& model_of(TRITONBACKEND_ModelInstance* instance) {
  TRITONBACKEND_Model* model = nullptr;
  void* state = nullptr;
  check(TRITONBACKEND_ModelInstanceModel(instance, &model));
  check(TRITONBACKEND_ModelState(model, &state));
  return *static_cast<Model*>(state);
}

// Returns the specification in a model's configuration.
const std::string& spec_of(const Json& config) {
  return config.at("parameters", "config")
      .at("spec", "config.parameters")
      .at("string_value", "config.parameters.spec")
      .string("config.parameters.spec.string_value");
}

std::unique_ptr<Listener> listen(TRITONBACKEND_Model* model) {
  std::string path = variable("JIGSAW_CALL_SOCKET");
  if (path.empty())
    throw std::runtime_error(
        "JIGSAW_CALL_SOCKET is not set; set it to the path of the socket before the worker starts");
  TRITONSERVER_Server* server = nullptr;
  check(TRITONBACKEND_ModelServer(model, &server));
  return std::make_unique<Listener>(server, std::move(path), variable("JIGSAW_SECRET"));
}

std::unique_ptr<Model> load(TRITONBACKEND_Model* model) {
  Json config = Json::parse(config_of(model));
  const std::string& text = spec_of(config);
  auto made = std::make_unique<Model>();
  Json spec = Json::parse(text);
  if (spec.find("listens")) {
    made->listener = listen(model);
  } else if (const Json* runner = spec.find("runner")) {
    if (const std::string& name = runner->string("spec.runner"); name != kOnnxRunner)
      throw std::runtime_error("the backend jigsaw cannot run the template " + name +
                               "; only the template onnxruntime may name this backend");
    made->onnx = std::make_unique<OnnxModel>(model, config, spec);
  } else {
    made->front = std::make_unique<Front>(process().engine(), config.at("name", "config").string("config.name"), text);
  }
  AnswerGate::get().find_pairs();
  return made;
}

}  // namespace
}  // namespace jigsaw

using jigsaw::log_failure;
using jigsaw::process;

extern "C" {

// Returns version, compiler and required API version of this library as JSON.
JIGSAW_EXPORT const char* jigsaw_build_info() {
  return "{\"version\":\"" JIGSAW_VERSION "\",\"compiler\":\"" JIGSAW_COMPILER
         "\",\"api\":\"" JIGSAW_TEXT(JIGSAW_BACKEND_API_MAJOR) "." JIGSAW_TEXT(JIGSAW_BACKEND_API_MINOR) "\"}";
}

JIGSAW_EXPORT TRITONSERVER_Error* TRITONBACKEND_Initialize(TRITONBACKEND_Backend*) {
  uint32_t major = 0, minor = 0;
  if (TRITONSERVER_Error* error = TRITONBACKEND_ApiVersion(&major, &minor)) return error;
  if (major != JIGSAW_BACKEND_API_MAJOR || minor < JIGSAW_BACKEND_API_MINOR) {
    std::string text = "this tritonserver has backend API " + std::to_string(major) + "." + std::to_string(minor) +
                       ", and jigsaw-triton's backend needs " JIGSAW_TEXT(JIGSAW_BACKEND_API_MAJOR) "." JIGSAW_TEXT(
                           JIGSAW_BACKEND_API_MINOR) " or a later minor version; use tritonserver 24.10 or later";
    return TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_UNSUPPORTED, text.c_str());
  }
  process().shared.reset();
  return nullptr;
}

JIGSAW_EXPORT TRITONSERVER_Error* TRITONBACKEND_ModelInitialize(TRITONBACKEND_Model* model) {
  try {
    return TRITONBACKEND_ModelSetState(model, jigsaw::load(model).release());
  } catch (const std::exception& error) {
    return jigsaw::failed(error);
  }
}

JIGSAW_EXPORT TRITONSERVER_Error* TRITONBACKEND_ModelFinalize(TRITONBACKEND_Model* model) {
  void* state = nullptr;
  if (TRITONSERVER_Error* error = TRITONBACKEND_ModelState(model, &state)) return error;
  delete static_cast<jigsaw::Model*>(state);
  return nullptr;
}

JIGSAW_EXPORT TRITONSERVER_Error* TRITONBACKEND_ModelInstanceInitialize(TRITONBACKEND_ModelInstance* instance) {
  try {
    auto made = std::make_unique<jigsaw::Instance>();
    if (const auto& onnx = jigsaw::model_of(instance).onnx) made->trace = onnx->trace_of(instance);
    return TRITONBACKEND_ModelInstanceSetState(instance, made.release());
  } catch (const std::exception& error) {
    return jigsaw::failed(error);
  }
}

JIGSAW_EXPORT TRITONSERVER_Error* TRITONBACKEND_ModelInstanceFinalize(TRITONBACKEND_ModelInstance* instance) {
  void* found = nullptr;
  if (TRITONSERVER_Error* error = TRITONBACKEND_ModelInstanceState(instance, &found)) return error;
  auto* state = static_cast<jigsaw::Instance*>(found);
  {
    // Requests in flight need the instance until they are released.
    std::unique_lock lock(state->mutex);
    state->idle.wait(lock, [state] { return state->under_way == 0; });
  }
  delete state;
  return nullptr;
}

JIGSAW_EXPORT TRITONSERVER_Error* TRITONBACKEND_ModelInstanceExecute(TRITONBACKEND_ModelInstance* instance,
                                                                     TRITONBACKEND_Request** requests,
                                                                     const uint32_t count) {
  jigsaw::Time begin = jigsaw::now();
  void* found = nullptr;
  if (TRITONSERVER_Error* error = TRITONBACKEND_ModelInstanceState(instance, &found)) return error;
  auto* state = static_cast<jigsaw::Instance*>(found);
  const jigsaw::Model& model = jigsaw::model_of(instance);
  if (model.listener)
    return TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_UNSUPPORTED,
                                 "this model takes the calls of gateways, and answers no requests itself");
  if (model.onnx) {
    model.onnx->execute(instance, *state->trace, requests, count);
    return nullptr;
  }
  {
    std::lock_guard lock(state->mutex);
    state->under_way += count;
  }
  for (uint32_t i = 0; i < count; i++)
    (new jigsaw::TritonRequest(*model.front, requests[i], instance, *state, begin))->submit();
  return nullptr;
}

}  // extern "C"
