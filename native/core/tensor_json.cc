#include "core/tensor_json.h"

#include <charconv>

namespace jigsaw {
namespace {

constexpr size_t kMaxDimensions = 32;

}  // namespace

void append_number(std::string& out, int64_t value) {
  char text[24];
  auto [end, error] = std::to_chars(text, text + sizeof text, value);
  out.append(text, end);
}

void append_tensor(std::string& out, std::string_view name, DataType type, std::span<const int64_t> shape) {
  out += "{\"name\":";
  append_json(out, name);
  out += ",\"datatype\":\"";
  out += name_of(type);
  out += "\",\"shape\":[";
  for (size_t i = 0; i < shape.size(); i++) {
    if (i) out += ',';
    append_number(out, shape[i]);
  }
  out += ']';
}

void append_binary_size(std::string& out, size_t size) {
  out += ",\"parameters\":{\"binary_data_size\":";
  append_number(out, int64_t(size));
  out += '}';
}

TensorHead parse_tensor(const Json& item, const std::string& kind) {
  TensorHead tensor;
  tensor.name = item.at("name", kind).string(kind + ".name");
  tensor.type = data_type(item.at("datatype", kind).string(kind + ".datatype"));
  std::string what = kind + " " + tensor.name;
  if (tensor.type == DataType::kInvalid) throw FormatError(what + " has an unknown data type");
  for (const Json& dim : item.at("shape", kind).array(kind + ".shape"))
    tensor.shape.push_back(dim.integer(kind + ".shape"));
  if (tensor.shape.size() > kMaxDimensions) throw FormatError(what + " has too many dimensions");
  auto count = element_count(tensor.shape);
  if (!count) throw FormatError(what + " has an impossible shape");
  tensor.elements = *count;
  return tensor;
}

void check_size(const TensorHead& tensor, size_t size, const std::string& kind) {
  size_t element = element_size(tensor.type);
  if (element && size_t(tensor.elements) * element != size)
    throw FormatError(kind + " " + tensor.name + " of shape " + text_of(tensor.shape) + " has " + std::to_string(size) +
                      " bytes");
}

}  // namespace jigsaw
