// The entry points of the Triton backend. Each model is a front, whose requests are passed to the core, or an ONNX
// model.
#include <cstdlib>
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
#include "triton/onnx_model.h"
#include "triton/request.h"
#include "triton/server_host.h"

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

// State that all models of the process share. Never destroyed, because Triton unloads backends while threads may still
// run.
struct Process {
  std::mutex mutex;
  ServerHost host;
  std::unique_ptr<Engine> shared;  // Engine of all fronts; workers have none.

  // Returns the engine, which the first front starts.
  Engine& engine() {
    std::lock_guard lock(mutex);
    if (!shared) shared = std::make_unique<Engine>(host, settings());
    return *shared;
  }

 private:
  static Settings settings() {
    auto text = [](const char* name) {
      const char* value = getenv(name);
      return std::string(value ? value : "");
    };
    if (text("JIGSAW_RUN_DIR").empty())
      throw std::runtime_error("JIGSAW_RUN_DIR is not set; set it to the run directory before the gateway starts");
    return {text("JIGSAW_RUN_DIR"), text("JIGSAW_SECRET"), text("JIGSAW_SHM_PREFIX")};
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
};

// State of a model instance.
struct Instance {
  RequestsInFlight requests;      // Requests to a front.
  std::optional<RunTrace> trace;  // Trace file of an ONNX model's instance.
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

std::unique_ptr<Model> load(TRITONBACKEND_Model* model) {
  Json config = Json::parse(config_of(model));
  const std::string& text = spec_of(config);
  auto made = std::make_unique<Model>();
  Json spec = Json::parse(text);
  if (const Json* runner = spec.find("runner")) {
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
  // Requests in flight need the instance until they are released.
  state->requests.wait();
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
  if (model.onnx) {
    model.onnx->execute(instance, *state->trace, requests, count);
    return nullptr;
  }
  state->requests.add(count);
  for (uint32_t i = 0; i < count; i++) jigsaw::submit(*model.front, requests[i], instance, state->requests, begin);
  return nullptr;
}

}  // extern "C"
