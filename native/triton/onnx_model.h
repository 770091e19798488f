// A model of the server that is an ONNX model: requests are passed to ONNX Runtime.
#pragma once

#include <memory>
#include <string>

#include "core/json.h"
#include "core/run_trace.h"
#include "onnx/model.h"
#include "triton/abi.h"

namespace jigsaw {

// Name of the runner in the specification of such a model.
inline constexpr std::string_view kOnnxRunner = "onnxruntime";

// The model. Its instances share it, and run in threads of the server.
class OnnxModel {
 public:
  // Throws std::runtime_error, whose message names the model, if it cannot be loaded.
  OnnxModel(TRITONBACKEND_Model* model, const Json& config, const Json& spec);

  // Returns the trace file of an instance.
  RunTrace trace_of(TRITONBACKEND_ModelInstance* instance) const;

  // Answers and releases requests.
  void execute(TRITONBACKEND_ModelInstance* instance, const RunTrace& trace, TRITONBACKEND_Request** requests,
               uint32_t count) const;

 private:
  std::string name_, worker_;
  std::unique_ptr<onnx::Model> model_;
};

}  // namespace jigsaw
