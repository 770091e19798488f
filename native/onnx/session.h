// A model that ONNX Runtime has loaded.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/base.h"
#include "core/host.h"
#include "onnx/library.h"

namespace jigsaw::onnx {

// Input or output as the model declares it.
struct Declared {
  std::string name;
  DataType type = DataType::kInvalid;  // kInvalid if Triton has no such type.
  Shape shape;  // -1 for a dimension that varies. Empty for a scalar, and also if the model declares no shape.
  bool optional = false;  // True for an input with a default: an initializer of its name.
};

// Way in which a session runs.
struct Execution {
  int threads = 1;   // Threads that compute, the calling ones included.
  bool gpu = false;  // True to compute on the GPU.
};

// A loaded model. Immutable, and thread-safe.
class Session {
 public:
  // Throws std::runtime_error if the file is no model that this release can run.
  Session(const Library& library, const std::string& path, const Execution& execution);

  const std::vector<Declared>& inputs() const { return inputs_; }
  const std::vector<Declared>& outputs() const { return outputs_; }

  // Runs the model once. The names and the values of inputs correspond. Returns the values of these outputs.
  // Throws std::runtime_error if the model fails.
  std::vector<Value> run(const std::vector<std::string>& input_names, const std::vector<Value>& inputs,
                         const std::vector<std::string>& output_names) const;

 private:
  using Handle = std::shared_ptr<OrtValue>;

  Handle tensor(const Value& value) const;
  Handle strings(const Value& value) const;
  Value value(Handle tensor) const;
  // Reads what the model declares, with the functions of the library for one kind of tensor.
  template <typename Count, typename Name, typename Type>
  std::vector<Declared> declared(const Count& count_of, const Name& name_of, const Type& type_info_of) const;

  const Library& library_;
  std::shared_ptr<OrtSession> session_;
  std::vector<Declared> inputs_, outputs_;
};

}  // namespace jigsaw::onnx
