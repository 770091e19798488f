// Name, data type and shape of a tensor in the JSON of requests and answers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "core/base.h"
#include "core/json.h"

namespace jigsaw {

// Appends a number in decimal.
void append_number(std::string& out, int64_t value);

// Appends the start of a tensor's object: name, data type and shape. The object stays open.
void append_tensor(std::string& out, std::string_view name, DataType type, std::span<const int64_t> shape);

// Appends the parameter of a tensor whose bytes follow the JSON, after other members of its object.
void append_binary_size(std::string& out, size_t size);

// A tensor that was read.
struct TensorHead {
  std::string name;
  DataType type = DataType::kInvalid;
  Shape shape;
  int64_t elements = 0;
};

// Parses name, data type and shape. `kind` is "input" or "output", for errors. Throws FormatError.
TensorHead parse_tensor(const Json& item, const std::string& kind);

// Throws FormatError unless a tensor has this many bytes, or elements of varying size.
void check_size(const TensorHead& tensor, size_t size, const std::string& kind);

}  // namespace jigsaw
