// A variant of a task that is an ONNX model: it answers the requests of a batch.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/base.h"
#include "core/host.h"
#include "core/json.h"
#include "core/spec.h"
#include "onnx/session.h"

namespace jigsaw::onnx {

// Name of the model's file in its version folder.
inline constexpr const char* kModelFile = "model.onnx";

// Specification of a variant, which the compiler writes into the model's configuration (runtime.spec.RunnerSpec).
struct ModelSpec {
  std::vector<TensorSpec> inputs;  // Shapes without the batch dimension.
  std::vector<TensorSpec> outputs;
  std::vector<bool> padded;  // For each output: true if its rows are padded, so that items stack.
  bool stack = true;         // True if items are joined along the batch dimension, false if each is a run of its own.
  int threads = 1;           // Threads of one instance.

  // Throws FormatError.
  static ModelSpec parse(const Json& json);
};

// An output of a request, or the number of rows of each of its items in another output.
struct Output {
  std::string name;
  Value value;
};

// Answer to a request.
struct Answer {
  std::vector<Output> outputs;  // The outputs of the specification, then the numbers of rows of padded ones.
  std::optional<Failure> failure;
};

// A loaded variant. Immutable, and thread-safe.
class Model {
 public:
  // Throws std::runtime_error if the file is no model, or does not match the specification.
  Model(const Library& library, const std::string& path, ModelSpec spec, const Execution& execution);

  const ModelSpec& spec() const { return spec_; }

  // Answers the requests of a batch, each with its inputs in the order of the specification. Requests of equal shapes
  // are joined in one run. If that run fails, each request is run separately, so that it cannot fail others.
  std::vector<Answer> answer(const std::vector<std::vector<Value>>& requests) const;

 private:
  using Values = std::vector<Value>;

  std::vector<Answer> answer_joined(const std::vector<const Values*>& requests) const;
  Answer answer_one(const Values& inputs) const;
  Answer answer_empty(const Values& inputs) const;
  Answer answer_items(const Values& inputs) const;
  Answer run(const Values& inputs) const;
  std::string fault_of(const Values& inputs) const;
  void check(const Values& outputs, int64_t items) const;

  ModelSpec spec_;
  Session session_;
  std::vector<std::string> input_names_, output_names_;
};

}  // namespace jigsaw::onnx
