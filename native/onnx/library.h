// ONNX Runtime in this process: the shared library of the Python package `onnxruntime` or `onnxruntime-gpu`.
#pragma once

#include <memory>
#include <stdexcept>
#include <string>

#include "onnx/api.h"

namespace jigsaw::onnx {

// Finds ONNX Runtime's shared library in one of the folders of Python packages, which are separated by colons.
// Throws std::runtime_error, whose message says what to do.
std::string find_library(const std::string& folders);

// Cuts a part of an error text off if it is long: gRPC drops responses whose message exceeds 8 KB.
std::string shortened(const std::string& text);

// A loaded library. Shared by all models and never unloaded, because a library with threads cannot be unloaded safely.
class Library {
 public:
  // Loads the library, unless it is loaded already. Thread-safe.
  // Throws std::runtime_error if it cannot be loaded or is too old.
  static const Library& load(const std::string& path);

  const Api& api() const { return api_; }
  const OrtEnv* env() const { return env_; }
  OrtAllocator* allocator() const { return allocator_; }
  const OrtMemoryInfo* cpu_memory() const { return cpu_memory_; }
  const std::string& release() const { return release_; }

  // Returns true if it can run models on NVIDIA's GPUs.
  bool has_cuda() const;

  // Throws the error of a function as std::runtime_error, whose text is shortened.
  void check(OrtStatus* status) const;

 private:
  Library(Table table, std::string release);

  Api api_;
  std::string release_;
  OrtEnv* env_ = nullptr;
  OrtAllocator* allocator_ = nullptr;
  OrtMemoryInfo* cpu_memory_ = nullptr;
};

}  // namespace jigsaw::onnx
