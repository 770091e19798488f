// A fake server for tests of the Triton layer. It defines the functions that `triton/abi.h` declares, and counts the
// objects that it hands out. `fake_triton_control.cc` has the functions that tests call.
#include "testing/fake_triton.h"

#include <cstdlib>
#include <cstring>
#include <string_view>

using jigsaw::testing::server;

namespace jigsaw::testing {

Server& server() {
  static auto* made = new Server;
  return *made;
}

}  // namespace jigsaw::testing

namespace {

TRITONSERVER_Error* error(TRITONSERVER_Error_Code code, const std::string& message) {
  server().errors++;
  return new TRITONSERVER_Error{code, message};
}

// Returns an error if this function is the one that fails now, else nullptr.
TRITONSERVER_Error* failure_of(const char* function) {
  std::lock_guard lock(server().mutex);
  return server().failing == function ? error(TRITONSERVER_ERROR_INTERNAL, std::string(function) + " fails") : nullptr;
}

}  // namespace

extern "C" {

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

}  // extern "C"
