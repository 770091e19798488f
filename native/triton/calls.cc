#include "triton/calls.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <stdexcept>

namespace jigsaw {

void check(TRITONSERVER_Error* error) {
  if (!error) return;
  std::string text = TRITONSERVER_ErrorMessage(error);
  TRITONSERVER_ErrorDelete(error);
  throw std::runtime_error(text);
}

void log_message(TRITONSERVER_LogLevel level, const std::string& text) {
  if (TRITONSERVER_Error* error = TRITONSERVER_LogMessage(level, "jigsaw", 0, text.c_str()))
    TRITONSERVER_ErrorDelete(error);
}

void log_failure(TRITONSERVER_Error* error) {
  if (!error) return;
  log_message(TRITONSERVER_LOG_ERROR, TRITONSERVER_ErrorMessage(error));
  TRITONSERVER_ErrorDelete(error);
}

TRITONSERVER_Error_Code code_of(Blame blame) {
  switch (blame) {
    case Blame::kRequest:
      return TRITONSERVER_ERROR_INVALID_ARG;
    case Blame::kModel:
      return TRITONSERVER_ERROR_INTERNAL;
    case Blame::kWorker:
      return TRITONSERVER_ERROR_UNAVAILABLE;
    case Blame::kCancelled:
      return TRITONSERVER_ERROR_CANCELLED;
  }
  return TRITONSERVER_ERROR_INTERNAL;
}

std::string variable(const char* name) {
  const char* value = getenv(name);
  return value ? value : "";
}

std::string config_of(TRITONBACKEND_Model* model) {
  TRITONSERVER_Message* message = nullptr;
  check(TRITONBACKEND_ModelConfig(model, 1, &message));
  const char* text = nullptr;
  size_t size = 0;
  TRITONSERVER_Error* error = TRITONSERVER_MessageSerializeToJson(message, &text, &size);
  std::string config;
  if (!error) config.assign(text, size);
  log_failure(TRITONSERVER_MessageDelete(message));
  check(error);
  return config;
}

Value input_of(TRITONBACKEND_Request* request, const char* name) {
  TRITONBACKEND_Input* input = nullptr;
  check(TRITONBACKEND_RequestInput(request, name, &input));
  TRITONSERVER_DataType type;
  const int64_t* shape = nullptr;
  uint32_t dims = 0, buffers = 0;
  uint64_t size = 0;
  check(TRITONBACKEND_InputProperties(input, nullptr, &type, &shape, &dims, &size, &buffers));
  Value value;
  value.type = DataType(type);
  value.shape.assign(shape, shape + dims);
  value.size = size;
  if (buffers > 1) value.owner = std::shared_ptr<char[]>(new char[std::max<uint64_t>(size, 1)]);
  size_t at = 0;
  for (uint32_t i = 0; i < buffers; i++) {
    const void* data = nullptr;
    uint64_t part = 0;
    TRITONSERVER_MemoryType memory = TRITONSERVER_MEMORY_CPU;
    int64_t memory_id = 0;
    check(TRITONBACKEND_InputBuffer(input, i, &data, &part, &memory, &memory_id));
    if (memory == TRITONSERVER_MEMORY_GPU)
      throw std::runtime_error(std::string("input ") + name +
                               " is in GPU memory, which this backend cannot read; send it in host memory");
    if (!value.owner) {
      value.data = static_cast<const char*>(data);
      value.size = part;
    } else if (part) {
      memcpy(value.owner.get() + at, data, part);
      at += part;
    }
  }
  if (value.owner) value.data = value.owner.get();
  return value;
}

std::vector<std::string> output_names_of(TRITONBACKEND_Request* request) {
  uint32_t count = 0;
  log_failure(TRITONBACKEND_RequestOutputCount(request, &count));
  std::vector<std::string> names;
  for (uint32_t i = 0; i < count; i++) {
    const char* name = nullptr;
    check(TRITONBACKEND_RequestOutputName(request, i, &name));
    names.emplace_back(name);
  }
  return names;
}

bool is_cancelled(TRITONBACKEND_Request* request) {
  bool cancelled = false;
  if (TRITONSERVER_Error* error = TRITONBACKEND_RequestIsCancelled(request, &cancelled))
    TRITONSERVER_ErrorDelete(error);
  return cancelled;
}

char* output_buffer(TRITONBACKEND_Response* response, const char* name, DataType type, const Shape& shape,
                    size_t size) {
  TRITONBACKEND_Output* output = nullptr;
  check(TRITONBACKEND_ResponseOutput(response, &output, name, TRITONSERVER_DataType(type), shape.data(),
                                     uint32_t(shape.size())));
  void* buffer = nullptr;
  TRITONSERVER_MemoryType memory = TRITONSERVER_MEMORY_CPU;
  int64_t memory_id = 0;
  check(TRITONBACKEND_OutputBuffer(output, &buffer, size, &memory, &memory_id));
  if (memory == TRITONSERVER_MEMORY_GPU)
    throw std::runtime_error(std::string("the buffer of output ") + name +
                             " is in GPU memory, which this backend cannot write");
  return static_cast<char*>(buffer);
}

}  // namespace jigsaw
