// Calls of the server's functions, with exceptions in place of error objects.
#pragma once

#include <string>
#include <vector>

#include "core/base.h"
#include "core/host.h"
#include "triton/abi.h"

namespace jigsaw {

// Throws an error of the server as std::runtime_error.
void check(TRITONSERVER_Error* error);

void log_message(TRITONSERVER_LogLevel level, const std::string& text);

// Logs an error of a call that only fails if the server is broken, where no caller could handle the error.
void log_failure(TRITONSERVER_Error* error);

TRITONSERVER_Error_Code code_of(Blame blame);

// Returns an environment variable; empty if it is not set.
std::string variable(const char* name);

// Returns a model's configuration as JSON.
std::string config_of(TRITONBACKEND_Model* model);

// Returns an input of a request, copied only if it is not in one piece. The request owns the memory otherwise.
Value input_of(TRITONBACKEND_Request* request, const char* name);

// Returns the names of the outputs that a request wants.
std::vector<std::string> output_names_of(TRITONBACKEND_Request* request);

bool is_cancelled(TRITONBACKEND_Request* request);

// Adds an output to a response and returns its memory.
char* output_buffer(TRITONBACKEND_Response* response, const char* name, DataType type, const Shape& shape, size_t size);

}  // namespace jigsaw
