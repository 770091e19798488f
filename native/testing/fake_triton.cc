// A fake server for tests of the Triton layer. It defines the functions that `triton/abi.h` declares, counts the
// objects that it hands out, and is controlled from Python.
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "core/base.h"
#include "core/json.h"
#include "triton/abi.h"

using jigsaw::DataType;
using jigsaw::Json;
using jigsaw::Shape;

struct TRITONSERVER_Error {
  TRITONSERVER_Error_Code code;
  std::string message;
};

struct TRITONSERVER_Message {
  std::string text;
};

struct TRITONSERVER_Parameter {
  std::string name, value;
};

struct TRITONSERVER_MetricFamily {
  TRITONSERVER_MetricKind kind;
  std::string name;
};

struct TRITONSERVER_MetricArgs {
  std::vector<double> buckets;
};

struct TRITONSERVER_Metric {
  TRITONSERVER_MetricFamily* family;
  std::string labels;
  double value = 0;
};

struct TRITONBACKEND_Input {
  std::string name;
  DataType type;
  Shape shape;
  std::vector<std::string> buffers;
  bool on_gpu = false;
};

struct TRITONBACKEND_Output {
  std::string name;
  DataType type;
  Shape shape;
  std::unique_ptr<char[]> data;
  size_t size = 0;
  bool on_gpu = false;
};

struct TRITONBACKEND_Model {
  std::string config;
  std::string folder;
  void* state = nullptr;
  TRITONBACKEND_ModelInstance* instance = nullptr;
  std::atomic<int64_t> succeeded{0}, failed{0}, batches{0}, batch_items{0};
};

struct TRITONBACKEND_ModelInstance {
  TRITONBACKEND_Model* model;
  void* state = nullptr;
};

// The response to a request as its client sees it. It outlives the request.
struct Answer {
  std::mutex mutex;
  std::condition_variable changed;
  int responses = 0;
  bool released = false;
  std::unique_ptr<TRITONSERVER_Error> error;
  std::deque<TRITONBACKEND_Output> outputs;
};

struct TRITONBACKEND_Request {
  std::shared_ptr<Answer> answer;
  std::string id;
  std::deque<TRITONBACKEND_Input> inputs;
  std::vector<std::string> outputs;
  std::vector<std::pair<std::string, int64_t>> parameters;
  uint64_t timeout_us = 0;
  std::atomic<bool> cancelled{false};
  bool output_on_gpu = false;
};

struct TRITONBACKEND_Response {
  std::shared_ptr<Answer> answer;
  std::deque<TRITONBACKEND_Output> outputs;
  bool on_gpu = false;
};

extern "C" {

TRITONSERVER_Error* TRITONBACKEND_Initialize(TRITONBACKEND_Backend*);
TRITONSERVER_Error* TRITONBACKEND_ModelInitialize(TRITONBACKEND_Model*);
TRITONSERVER_Error* TRITONBACKEND_ModelFinalize(TRITONBACKEND_Model*);
TRITONSERVER_Error* TRITONBACKEND_ModelInstanceInitialize(TRITONBACKEND_ModelInstance*);
TRITONSERVER_Error* TRITONBACKEND_ModelInstanceFinalize(TRITONBACKEND_ModelInstance*);
TRITONSERVER_Error* TRITONBACKEND_ModelInstanceExecute(TRITONBACKEND_ModelInstance*, TRITONBACKEND_Request**, uint32_t);
}

namespace {

struct Server {
  std::mutex mutex;
  uint32_t major = JIGSAW_BACKEND_API_MAJOR, minor = JIGSAW_BACKEND_API_MINOR;
  std::string failing;  // Name of the function that fails now; empty for none.
  std::vector<std::string> logs;
  std::map<std::string, double> metrics;  // Values by name and labels.
  std::list<TRITONSERVER_Metric> series;
  std::deque<TRITONSERVER_MetricFamily> families;  // Never freed, because the backend never deletes them.
  std::atomic<int64_t> errors{0}, messages{0}, parameters{0}, arguments{0}, requests{0}, responses{0};
};

Server& server() {
  static auto* made = new Server;
  return *made;
}

TRITONSERVER_Error* error(TRITONSERVER_Error_Code code, const std::string& message) {
  server().errors++;
  return new TRITONSERVER_Error{code, message};
}

// Returns an error if this function is the one that fails now, else nullptr.
TRITONSERVER_Error* failure_of(const char* function) {
  std::lock_guard lock(server().mutex);
  return server().failing == function ? error(TRITONSERVER_ERROR_INTERNAL, std::string(function) + " fails") : nullptr;
}

// Returns the text of an error and deletes the error; nullptr for no error.
char* text_of_error(TRITONSERVER_Error* error) {
  if (!error) return nullptr;
  char* text = strdup(error->message.c_str());
  TRITONSERVER_ErrorDelete(error);
  return text;
}

int64_t number(const Json& json, std::string_view name, int64_t otherwise) {
  const Json* found = json.find(name);
  return found ? found->integer(name) : otherwise;
}

std::unique_ptr<TRITONBACKEND_Request> read_request(const Json& json, std::string_view data) {
  auto request = std::make_unique<TRITONBACKEND_Request>();
  request->answer = std::make_shared<Answer>();
  if (const Json* id = json.find("id")) request->id = id->string("id");
  request->timeout_us = uint64_t(number(json, "timeout_us", 0));
  request->output_on_gpu = number(json, "output_on_gpu", 0) != 0;
  request->cancelled = number(json, "cancelled", 0) != 0;
  for (const Json& item : json.at("inputs", "request").array("inputs")) {
    TRITONBACKEND_Input input;
    input.name = item.at("name", "input").string("name");
    input.type = jigsaw::data_type(item.at("dtype", "input").string("dtype"));
    for (const Json& dim : item.at("shape", "input").array("shape")) input.shape.push_back(dim.integer("shape"));
    input.on_gpu = number(item, "on_gpu", 0) != 0;
    auto size = size_t(number(item, "size", 0)), parts = size_t(number(item, "buffers", 1));
    std::string_view whole = data.substr(0, size);
    data.remove_prefix(size);
    for (size_t part = 0; part < parts; part++) {
      size_t begin = size * part / parts, end = size * (part + 1) / parts;
      input.buffers.emplace_back(whole.substr(begin, end - begin));
    }
    request->inputs.push_back(std::move(input));
  }
  if (const Json* outputs = json.find("outputs"))
    for (const Json& name : outputs->array("outputs")) request->outputs.push_back(name.string("outputs"));
  if (const Json* parameters = json.find("parameters"))
    for (const auto& [name, value] : parameters->object("parameters").members())
      request->parameters.emplace_back(name, value.integer(name));
  server().requests++;
  return request;
}

}  // namespace

extern "C" {

// --- Functions that the backend calls.

TRITONSERVER_Error* TRITONSERVER_ErrorNew(TRITONSERVER_Error_Code code, const char* message) {
  return error(code, message);
}

void TRITONSERVER_ErrorDelete(TRITONSERVER_Error* error) {
  server().errors--;
  delete error;
}

const char* TRITONSERVER_ErrorMessage(TRITONSERVER_Error* error) { return error->message.c_str(); }

TRITONSERVER_Error* TRITONSERVER_LogMessage(TRITONSERVER_LogLevel level, const char*, int, const char* message) {
  constexpr const char* kLevels[] = {"info: ", "warning: ", "error: "};
  std::lock_guard lock(server().mutex);
  server().logs.push_back(std::string(kLevels[level]) + message);
  return nullptr;
}

TRITONSERVER_Error* TRITONSERVER_MessageSerializeToJson(TRITONSERVER_Message* message, const char** base,
                                                        size_t* size) {
  *base = message->text.data();
  *size = message->text.size();
  return failure_of("MessageSerializeToJson");
}

TRITONSERVER_Error* TRITONSERVER_MessageDelete(TRITONSERVER_Message* message) {
  server().messages--;
  delete message;
  return nullptr;
}

TRITONSERVER_Parameter* TRITONSERVER_ParameterNew(const char* name, TRITONSERVER_ParameterType, const void* value) {
  server().parameters++;
  return new TRITONSERVER_Parameter{name, static_cast<const char*>(value)};
}

void TRITONSERVER_ParameterDelete(TRITONSERVER_Parameter* parameter) {
  server().parameters--;
  delete parameter;
}

TRITONSERVER_Error* TRITONSERVER_MetricFamilyNew(TRITONSERVER_MetricFamily** family, TRITONSERVER_MetricKind kind,
                                                 const char* name, const char*) {
  if (auto* failed = failure_of("MetricFamilyNew")) return failed;
  std::lock_guard lock(server().mutex);
  *family = &server().families.emplace_back(TRITONSERVER_MetricFamily{kind, name});
  return nullptr;
}

TRITONSERVER_Error* TRITONSERVER_MetricArgsNew(TRITONSERVER_MetricArgs** args) {
  server().arguments++;
  *args = new TRITONSERVER_MetricArgs;
  return nullptr;
}

TRITONSERVER_Error* TRITONSERVER_MetricArgsSetHistogram(TRITONSERVER_MetricArgs* args, const double* buckets,
                                                        uint64_t count) {
  args->buckets.assign(buckets, buckets + count);
  return nullptr;
}

TRITONSERVER_Error* TRITONSERVER_MetricArgsDelete(TRITONSERVER_MetricArgs* args) {
  server().arguments--;
  delete args;
  return nullptr;
}

TRITONSERVER_Error* TRITONSERVER_MetricNewWithArgs(TRITONSERVER_Metric** metric, TRITONSERVER_MetricFamily* family,
                                                   const TRITONSERVER_Parameter** labels, uint64_t count,
                                                   const TRITONSERVER_MetricArgs* args) {
  if (auto* failed = failure_of("MetricNew")) return failed;
  if ((family->kind == TRITONSERVER_METRIC_KIND_HISTOGRAM) != (args && !args->buckets.empty()))
    return error(TRITONSERVER_ERROR_INVALID_ARG, "the arguments do not match the kind of metric");
  std::string text;
  for (uint64_t i = 0; i < count; i++) text += (i ? "," : "") + labels[i]->name + "=" + labels[i]->value;
  std::lock_guard lock(server().mutex);
  *metric = &server().series.emplace_back(TRITONSERVER_Metric{family, text});
  if (!server().metrics.emplace(family->name + "{" + text + "}", 0).second)
    return error(TRITONSERVER_ERROR_ALREADY_EXISTS, "the metric already exists");
  return nullptr;
}

TRITONSERVER_Error* TRITONSERVER_MetricNew(TRITONSERVER_Metric** metric, TRITONSERVER_MetricFamily* family,
                                           const TRITONSERVER_Parameter** labels, uint64_t count) {
  return TRITONSERVER_MetricNewWithArgs(metric, family, labels, count, nullptr);
}

TRITONSERVER_Error* TRITONSERVER_MetricDelete(TRITONSERVER_Metric* metric) {
  std::lock_guard lock(server().mutex);
  server().metrics.erase(metric->family->name + "{" + metric->labels + "}");
  std::erase_if(server().series, [&](const TRITONSERVER_Metric& series) { return &series == metric; });
  return nullptr;
}

static TRITONSERVER_Error* change(TRITONSERVER_Metric* metric, TRITONSERVER_MetricKind kind, double value, bool add) {
  if (metric->family->kind != kind) return error(TRITONSERVER_ERROR_UNSUPPORTED, "the metric is of another kind");
  std::lock_guard lock(server().mutex);
  double& sum = server().metrics[metric->family->name + "{" + metric->labels + "}"];
  sum = add ? sum + value : value;
  return nullptr;
}

TRITONSERVER_Error* TRITONSERVER_MetricIncrement(TRITONSERVER_Metric* metric, double value) {
  return change(metric, TRITONSERVER_METRIC_KIND_COUNTER, value, true);
}

TRITONSERVER_Error* TRITONSERVER_MetricSet(TRITONSERVER_Metric* metric, double value) {
  return change(metric, TRITONSERVER_METRIC_KIND_GAUGE, value, false);
}

TRITONSERVER_Error* TRITONSERVER_MetricObserve(TRITONSERVER_Metric* metric, double value) {
  return change(metric, TRITONSERVER_METRIC_KIND_HISTOGRAM, value, true);
}

TRITONSERVER_Error* TRITONBACKEND_ApiVersion(uint32_t* major, uint32_t* minor) {
  std::lock_guard lock(server().mutex);
  *major = server().major;
  *minor = server().minor;
  return nullptr;
}

TRITONSERVER_Error* TRITONBACKEND_ModelConfig(TRITONBACKEND_Model* model, uint32_t, TRITONSERVER_Message** config) {
  if (auto* failed = failure_of("ModelConfig")) return failed;
  server().messages++;
  *config = new TRITONSERVER_Message{model->config};
  return nullptr;
}

TRITONSERVER_Error* TRITONBACKEND_ModelRepository(TRITONBACKEND_Model* model, TRITONBACKEND_ArtifactType* type,
                                                  const char** location) {
  *type = TRITONBACKEND_ARTIFACT_FILESYSTEM;
  *location = model->folder.c_str();
  return nullptr;
}

TRITONSERVER_Error* TRITONBACKEND_ModelVersion(TRITONBACKEND_Model*, uint64_t* version) {
  *version = 1;
  return nullptr;
}

TRITONSERVER_Error* TRITONBACKEND_ModelState(TRITONBACKEND_Model* model, void** state) {
  *state = model->state;
  return nullptr;
}

TRITONSERVER_Error* TRITONBACKEND_ModelSetState(TRITONBACKEND_Model* model, void* state) {
  model->state = state;
  return nullptr;
}

TRITONSERVER_Error* TRITONBACKEND_ModelInstanceName(TRITONBACKEND_ModelInstance*, const char** name) {
  *name = "instance_0";
  return nullptr;
}

TRITONSERVER_Error* TRITONBACKEND_ModelInstanceModel(TRITONBACKEND_ModelInstance* instance,
                                                     TRITONBACKEND_Model** model) {
  *model = instance->model;
  return nullptr;
}

TRITONSERVER_Error* TRITONBACKEND_ModelInstanceState(TRITONBACKEND_ModelInstance* instance, void** state) {
  *state = instance->state;
  return nullptr;
}

TRITONSERVER_Error* TRITONBACKEND_ModelInstanceSetState(TRITONBACKEND_ModelInstance* instance, void* state) {
  instance->state = state;
  return nullptr;
}

TRITONSERVER_Error* TRITONBACKEND_ModelInstanceReportStatistics(TRITONBACKEND_ModelInstance* instance,
                                                                TRITONBACKEND_Request* request, bool success,
                                                                uint64_t exec_start, uint64_t compute_start,
                                                                uint64_t compute_end, uint64_t exec_end) {
  if (request->id == "freed") abort();
  if (compute_start > compute_end || compute_end > exec_end || exec_start > exec_end)
    return error(TRITONSERVER_ERROR_INVALID_ARG, "the times are not in order");
  (success ? instance->model->succeeded : instance->model->failed)++;
  return nullptr;
}

TRITONSERVER_Error* TRITONBACKEND_ModelInstanceReportBatchStatistics(TRITONBACKEND_ModelInstance* instance,
                                                                     uint64_t batch, uint64_t, uint64_t, uint64_t,
                                                                     uint64_t) {
  instance->model->batches++;
  instance->model->batch_items += int64_t(batch);
  return nullptr;
}

TRITONSERVER_Error* TRITONBACKEND_RequestId(TRITONBACKEND_Request* request, const char** id) {
  *id = request->id.c_str();
  return nullptr;
}

TRITONSERVER_Error* TRITONBACKEND_RequestIsCancelled(TRITONBACKEND_Request* request, bool* cancelled) {
  *cancelled = request->cancelled;
  return failure_of("RequestIsCancelled");
}

TRITONSERVER_Error* TRITONBACKEND_InferenceRequestTimeoutMicroseconds(TRITONBACKEND_Request* request,
                                                                      uint64_t* timeout) {
  *timeout = request->timeout_us;
  return failure_of("InferenceRequestTimeoutMicroseconds");
}

TRITONSERVER_Error* TRITONBACKEND_RequestParameterCount(TRITONBACKEND_Request* request, uint32_t* count) {
  *count = uint32_t(request->parameters.size());
  return nullptr;
}

TRITONSERVER_Error* TRITONBACKEND_RequestParameter(TRITONBACKEND_Request* request, uint32_t index, const char** key,
                                                   TRITONSERVER_ParameterType* type, const void** value) {
  *key = request->parameters[index].first.c_str();
  *type = TRITONSERVER_PARAMETER_INT;
  *value = &request->parameters[index].second;
  return failure_of("RequestParameter");
}

TRITONSERVER_Error* TRITONBACKEND_RequestInputCount(TRITONBACKEND_Request* request, uint32_t* count) {
  *count = uint32_t(request->inputs.size());
  return nullptr;
}

TRITONSERVER_Error* TRITONBACKEND_RequestInput(TRITONBACKEND_Request* request, const char* name,
                                               TRITONBACKEND_Input** input) {
  if (auto* failed = failure_of("RequestInput")) return failed;
  for (TRITONBACKEND_Input& found : request->inputs)
    if (found.name == name) {
      *input = &found;
      return nullptr;
    }
  return error(TRITONSERVER_ERROR_NOT_FOUND, std::string("the request has no input ") + name);
}

TRITONSERVER_Error* TRITONBACKEND_RequestInputName(TRITONBACKEND_Request* request, uint32_t index, const char** name) {
  *name = request->inputs[index].name.c_str();
  return nullptr;
}

TRITONSERVER_Error* TRITONBACKEND_RequestOutputCount(TRITONBACKEND_Request* request, uint32_t* count) {
  *count = uint32_t(request->outputs.size());
  return nullptr;
}

TRITONSERVER_Error* TRITONBACKEND_RequestOutputName(TRITONBACKEND_Request* request, uint32_t index, const char** name) {
  *name = request->outputs[index].c_str();
  return failure_of("RequestOutputName");
}

TRITONSERVER_Error* TRITONBACKEND_RequestRelease(TRITONBACKEND_Request* request, uint32_t) {
  std::shared_ptr<Answer> answer = request->answer;
  request->id = "freed";
  delete request;
  server().requests--;
  std::lock_guard lock(answer->mutex);
  answer->released = true;
  answer->changed.notify_all();
  return nullptr;
}

TRITONSERVER_Error* TRITONBACKEND_InputProperties(TRITONBACKEND_Input* input, const char** name,
                                                  TRITONSERVER_DataType* type, const int64_t** shape, uint32_t* dims,
                                                  uint64_t* size, uint32_t* buffers) {
  if (name) *name = input->name.c_str();
  *type = TRITONSERVER_DataType(input->type);
  *shape = input->shape.data();
  *dims = uint32_t(input->shape.size());
  *size = 0;
  for (const std::string& buffer : input->buffers) *size += buffer.size();
  *buffers = uint32_t(input->buffers.size());
  return nullptr;
}

TRITONSERVER_Error* TRITONBACKEND_InputBuffer(TRITONBACKEND_Input* input, uint32_t index, const void** buffer,
                                              uint64_t* size, TRITONSERVER_MemoryType* memory, int64_t*) {
  *buffer = input->buffers[index].data();
  *size = input->buffers[index].size();
  *memory = input->on_gpu ? TRITONSERVER_MEMORY_GPU : TRITONSERVER_MEMORY_CPU;
  return failure_of("InputBuffer");
}

TRITONSERVER_Error* TRITONBACKEND_ResponseNew(TRITONBACKEND_Response** response, TRITONBACKEND_Request* request) {
  if (auto* failed = failure_of("ResponseNew")) return failed;
  server().responses++;
  *response = new TRITONBACKEND_Response{request->answer, {}, request->output_on_gpu};
  return nullptr;
}

TRITONSERVER_Error* TRITONBACKEND_ResponseDelete(TRITONBACKEND_Response* response) {
  server().responses--;
  delete response;
  return nullptr;
}

TRITONSERVER_Error* TRITONBACKEND_ResponseOutput(TRITONBACKEND_Response* response, TRITONBACKEND_Output** output,
                                                 const char* name, TRITONSERVER_DataType type, const int64_t* shape,
                                                 uint32_t dims) {
  if (auto* failed = failure_of("ResponseOutput")) return failed;
  response->outputs.push_back({name, DataType(type), Shape(shape, shape + dims), nullptr, 0, response->on_gpu});
  *output = &response->outputs.back();
  return nullptr;
}

TRITONSERVER_Error* TRITONBACKEND_OutputBuffer(TRITONBACKEND_Output* output, void** buffer, uint64_t size,
                                               TRITONSERVER_MemoryType* memory, int64_t*) {
  if (auto* failed = failure_of("OutputBuffer")) return failed;
  output->data = std::make_unique<char[]>(size);
  output->size = size;
  *buffer = output->data.get();
  *memory = output->on_gpu ? TRITONSERVER_MEMORY_GPU : TRITONSERVER_MEMORY_CPU;
  return nullptr;
}

TRITONSERVER_Error* TRITONBACKEND_ResponseSend(TRITONBACKEND_Response* response, uint32_t flags,
                                               TRITONSERVER_Error* error) {
  std::shared_ptr<Answer> answer = response->answer;
  {
    std::lock_guard lock(answer->mutex);
    answer->responses += flags == TRITONSERVER_RESPONSE_COMPLETE_FINAL ? 1 : 100;
    if (error) answer->error = std::make_unique<TRITONSERVER_Error>(*error);
    answer->outputs = std::move(response->outputs);
    answer->changed.notify_all();
  }
  server().responses--;
  delete response;
  return failure_of("ResponseSend");
}

// --- Functions that tests call.

// Restarts as a server with this version of the backend API. Returns an error message, or nullptr.
char* triton_start(uint32_t major, uint32_t minor) {
  {
    std::lock_guard lock(server().mutex);
    server().major = major;
    server().minor = minor;
    server().failing.clear();
    server().logs.clear();
    server().metrics.clear();
  }
  return text_of_error(TRITONBACKEND_Initialize(nullptr));
}

// Makes a function fail from now on; an empty name ends this.
void triton_fail(const char* function) {
  std::lock_guard lock(server().mutex);
  server().failing = function;
}

// Loads a model from its folder. Returns nullptr and sets `message` if that fails.
TRITONBACKEND_Model* triton_load(const char* config, const char* folder, char** message) {
  auto* model = new TRITONBACKEND_Model{config, folder};
  *message = text_of_error(TRITONBACKEND_ModelInitialize(model));
  if (*message) {
    delete model;
    return nullptr;
  }
  model->instance = new TRITONBACKEND_ModelInstance{model};
  *message = text_of_error(TRITONBACKEND_ModelInstanceInitialize(model->instance));
  return model;
}

// Unloads a model, even while requests are in flight.
void triton_unload(TRITONBACKEND_Model* model) {
  free(text_of_error(TRITONBACKEND_ModelInstanceFinalize(model->instance)));
  free(text_of_error(TRITONBACKEND_ModelFinalize(model)));
  delete model->instance;
  delete model;
}

// Executes requests in one call. Stores for each the client's view of the response, and the request, which is valid for
// `triton_cancel` until it is answered. Returns an error message, or nullptr.
char* triton_execute(TRITONBACKEND_Model* model, const char* json, size_t json_size, const char* data, size_t size,
                     void** answers, TRITONBACKEND_Request** requests) {
  try {
    Json parsed = Json::parse({json, json_size});
    const auto& items = parsed.array("requests");
    std::vector<TRITONBACKEND_Request*> made;
    for (size_t i = 0; i < items.size(); i++) {
      made.push_back(read_request(items[i], {data, size}).release());
      answers[i] = new std::shared_ptr<Answer>(made[i]->answer);
      requests[i] = made[i];
    }
    return text_of_error(TRITONBACKEND_ModelInstanceExecute(model->instance, made.data(), uint32_t(made.size())));
  } catch (const std::exception& error) {
    return strdup(error.what());
  }
}

void triton_cancel(TRITONBACKEND_Request* request) { request->cancelled = true; }

// Waits for the response and, if `released` is set, until the backend has released the request. Returns 0 on timeout.
int triton_wait(void* answer, double seconds, int released) {
  Answer& found = **static_cast<std::shared_ptr<Answer>*>(answer);
  std::unique_lock lock(found.mutex);
  return found.changed.wait_for(lock, std::chrono::duration<double>(seconds),
                                [&] { return found.responses && (found.released || !released); });
}

char* triton_answer(void* answer) {
  Answer& found = **static_cast<std::shared_ptr<Answer>*>(answer);
  std::lock_guard lock(found.mutex);
  std::string text = "{\"responses\":" + std::to_string(found.responses) + ",\"error\":";
  if (found.error) {
    text += "[" + std::to_string(found.error->code) + ",";
    jigsaw::append_json(text, found.error->message);
    text += ']';
  } else {
    text += "null";
  }
  text += ",\"outputs\":[";
  for (const TRITONBACKEND_Output& output : found.outputs) {
    if (text.back() != '[') text += ',';
    text += "{\"name\":";
    jigsaw::append_json(text, output.name);
    text += std::string(",\"dtype\":\"") + jigsaw::name_of(output.type) +
            "\",\"shape\":" + jigsaw::text_of(output.shape) + ",\"size\":" + std::to_string(output.size) + "}";
  }
  return strdup((text + "]}").c_str());
}

const char* triton_answer_data(void* answer, size_t output) {
  return (**static_cast<std::shared_ptr<Answer>*>(answer)).outputs[output].data.get();
}

void triton_answer_free(void* answer) { delete static_cast<std::shared_ptr<Answer>*>(answer); }

// Returns as JSON: the numbers of objects that exist, the logs, and the metrics.
char* triton_state() {
  Server& s = server();
  std::lock_guard lock(s.mutex);
  std::string text = "{\"errors\":" + std::to_string(s.errors) + ",\"messages\":" + std::to_string(s.messages) +
                     ",\"parameters\":" + std::to_string(s.parameters) +
                     ",\"arguments\":" + std::to_string(s.arguments) + ",\"requests\":" + std::to_string(s.requests) +
                     ",\"responses\":" + std::to_string(s.responses) + ",\"logs\":[";
  for (const std::string& line : s.logs) {
    if (text.back() != '[') text += ',';
    jigsaw::append_json(text, line);
  }
  text += "],\"metrics\":{";
  for (const auto& [name, value] : s.metrics) {
    if (text.back() != '{') text += ',';
    jigsaw::append_json(text, name);
    text += ":" + std::to_string(value);
  }
  return strdup((text + "}}").c_str());
}

// Stores statistics of a model: [succeeded requests, failed requests, batches, items of all batches].
void triton_statistics(TRITONBACKEND_Model* model, int64_t* counts) {
  counts[0] = model->succeeded;
  counts[1] = model->failed;
  counts[2] = model->batches;
  counts[3] = model->batch_items;
}

}  // extern "C"
