#include "triton/onnx_model.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <numeric>
#include <optional>
#include <utility>

#include "triton/answer_gate.h"
#include "triton/calls.h"

namespace jigsaw {
namespace {

// Environment variable with the folders of the Python packages, separated by colons.
constexpr const char* kPackagesVariable = "JIGSAW_PACKAGES";

// A request of the server with the call that it carries.
struct Call {
  TRITONBACKEND_Request* request;
  CallId id;
  std::vector<Value> inputs;
  std::optional<Failure> failure;

  Call(TRITONBACKEND_Request* given, const onnx::ModelSpec& spec) : request(given) {
    try {
      const char* text = nullptr;
      check(TRITONBACKEND_RequestId(request, &text));
      if (text) id = CallId::parse(text);
      for (const TensorSpec& input : spec.inputs) inputs.push_back(input_of(request, input.name.c_str()));
    } catch (const std::exception& error) {
      failure = {Blame::kRequest, error.what()};
    }
    if (is_cancelled(request)) failure = {Blame::kCancelled, "the client cancelled the request"};
  }
};

// Sends the outputs that the request wants.
void send(TRITONBACKEND_Request* request, const std::vector<onnx::Output>& outputs) {
  TRITONBACKEND_Response* response = nullptr;
  check(TRITONBACKEND_ResponseNew(&response, request));
  try {
    for (const std::string& name : output_names_of(request)) {
      auto found = std::ranges::find(outputs, name, &onnx::Output::name);
      if (found == outputs.end()) throw std::runtime_error("the model has no output " + name);
      const Value& value = found->value;
      char* to = output_buffer(response, name.c_str(), value.type, value.shape, value.size);
      if (value.size) memcpy(to, value.data, value.size);
    }
  } catch (const std::exception&) {
    log_failure(TRITONBACKEND_ResponseDelete(response));
    throw;
  }
  AnswerGate::get().send(response, nullptr);
}

void send(TRITONBACKEND_Request* request, const Failure& failure) {
  TRITONBACKEND_Response* response = nullptr;
  log_failure(TRITONBACKEND_ResponseNew(&response, request));
  if (!response) return;
  AnswerGate::get().send(response, TRITONSERVER_ErrorNew(code_of(failure.blame), failure.message.c_str()));
}

// Sends an answer. Returns true if it has outputs, false if it is an error.
bool respond(TRITONBACKEND_Request* request, const onnx::Answer& answer) {
  try {
    if (!answer.failure) {
      send(request, answer.outputs);
      return true;
    }
    send(request, *answer.failure);
  } catch (const std::exception& error) {
    send(request, Failure{Blame::kModel, error.what()});
  }
  return false;
}

// Returns the threads of a model: those of one instance for each of its instances.
onnx::Execution execution_of(const Json& config, const onnx::ModelSpec& spec) {
  onnx::Execution execution;
  int instances = 0;
  for (const Json& group : config.at("instance_group", "config").array("config.instance_group")) {
    instances += int(group.at("count", "config.instance_group").integer("config.instance_group.count"));
    execution.gpu |= group.at("kind", "config.instance_group").string("config.instance_group.kind") == "KIND_GPU";
  }
  // The threads of the server that run the instances compute as well, so the session's own pool has the others. Its
  // size counts one calling thread.
  execution.threads = 1 + std::max(1, instances) * (spec.threads - 1);
  return execution;
}

}  // namespace

OnnxModel::OnnxModel(TRITONBACKEND_Model* model, const Json& config, const Json& spec)
    : name_(config.at("name", "config").string("config.name")) {
  TRITONBACKEND_ArtifactType type;
  const char* location = nullptr;
  uint64_t version = 0;
  check(TRITONBACKEND_ModelRepository(model, &type, &location));
  check(TRITONBACKEND_ModelVersion(model, &version));
  std::filesystem::path folder = location;
  worker_ = folder.parent_path().filename().string();
  try {
    onnx::ModelSpec parsed = onnx::ModelSpec::parse(spec);
    const onnx::Library& library = onnx::Library::load(onnx::find_library(variable(kPackagesVariable)));
    onnx::Execution execution = execution_of(config, parsed);
    if (execution.gpu && !library.has_cuda()) {
      log_message(TRITONSERVER_LOG_WARN, name_ + " runs on the CPU, because ONNX Runtime " + library.release() +
                                             " does not support GPUs; install onnxruntime-gpu in place of onnxruntime");
      execution.gpu = false;
    }
    std::string path = (folder / std::to_string(version) / onnx::kModelFile).string();
    model_ = std::make_unique<onnx::Model>(library, path, std::move(parsed), execution);
  } catch (const std::exception& error) {
    throw std::runtime_error("model " + name_ + ": " + error.what());
  }
}

RunTrace OnnxModel::trace_of(TRITONBACKEND_ModelInstance* instance) const {
  const char* name = nullptr;
  check(TRITONBACKEND_ModelInstanceName(instance, &name));
  std::string run_dir = variable("JIGSAW_RUN_DIR");
  std::string path = run_dir.empty() ? "" : run_dir + "/traces/workers/" + worker_ + "/" + name + ".jsonl";
  return {std::move(path), worker_, name_};
}

void OnnxModel::execute(TRITONBACKEND_ModelInstance* instance, const RunTrace& trace, TRITONBACKEND_Request** requests,
                        uint32_t count) const {
  Time begin = now();
  std::vector<Call> calls;
  std::vector<std::vector<Value>> inputs;
  std::vector<CallId> ids;
  int64_t items = 0;
  for (uint32_t i = 0; i < count; i++) {
    Call& call = calls.emplace_back(requests[i], model_->spec());
    ids.push_back(call.id);
    if (call.failure) continue;
    items += call.inputs[0].shape.empty() ? 0 : call.inputs[0].shape[0];
    inputs.push_back(call.inputs);
  }
  Time started = now();
  std::vector<onnx::Answer> answers = model_->answer(inputs);
  Time ended = now();
  auto next = answers.begin();
  bool any = false;
  for (Call& call : calls) {
    onnx::Answer answer;
    if (call.failure)
      answer.failure = std::move(call.failure);
    else
      answer = std::move(*next++);
    bool succeeded = respond(call.request, answer);
    any |= succeeded;
    log_failure(
        TRITONBACKEND_ModelInstanceReportStatistics(instance, call.request, succeeded, begin, started, ended, now()));
  }
  if (any)
    log_failure(TRITONBACKEND_ModelInstanceReportBatchStatistics(instance, uint64_t(std::max<int64_t>(1, items)), begin,
                                                                 started, ended, now()));
  trace.write(ids, begin, items);
  for (Call& call : calls) log_failure(TRITONBACKEND_RequestRelease(call.request, TRITONSERVER_REQUEST_RELEASE_ALL));
}

}  // namespace jigsaw
