#include "core/base.h"

#include <sys/random.h>

#include <array>
#include <cstring>

namespace jigsaw {
namespace {

struct TypeInfo {
  const char* name;
  size_t size;
};

constexpr std::array<TypeInfo, 15> kTypes = {{{"INVALID", 0},
                                              {"BOOL", 1},
                                              {"UINT8", 1},
                                              {"UINT16", 2},
                                              {"UINT32", 4},
                                              {"UINT64", 8},
                                              {"INT8", 1},
                                              {"INT16", 2},
                                              {"INT32", 4},
                                              {"INT64", 8},
                                              {"FP16", 2},
                                              {"FP32", 4},
                                              {"FP64", 8},
                                              {"BYTES", 0},
                                              {"BF16", 2}}};

}  // namespace

uint64_t random_number() {
  uint64_t number = 0;
  if (getrandom(&number, sizeof number, 0) != ssize_t(sizeof number)) number = now();
  return number;
}

size_t element_size(DataType type) { return kTypes[size_t(type)].size; }

const char* name_of(DataType type) { return kTypes[size_t(type)].name; }

DataType data_type(std::string_view name) {
  for (size_t i = 1; i < kTypes.size(); i++)
    if (name == kTypes[i].name) return DataType(i);
  return DataType::kInvalid;
}

std::string text_of(std::span<const int64_t> shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); i++) {
    if (i) text += ", ";
    text += std::to_string(shape[i]);
  }
  return text + "]";
}

Shape stack_of(int64_t items, const Shape& item) {
  Shape shape;
  shape.reserve(item.size() + 1);
  shape.push_back(items);
  for (int64_t dim : item) shape.push_back(dim);
  return shape;
}

std::optional<int64_t> element_count(std::span<const int64_t> shape) {
  constexpr int64_t kMaxElements = int64_t{1} << 56;
  int64_t count = 1;
  bool empty = false;
  for (int64_t dim : shape) {
    if (dim < 0) return std::nullopt;
    if (dim == 0) empty = true;
  }
  if (empty) return 0;
  for (int64_t dim : shape) {
    if (count > kMaxElements / dim) return std::nullopt;
    count *= dim;
  }
  return count;
}

std::vector<size_t> bytes_offsets(std::string_view data, int64_t count) {
  // `count` comes from the sender: check it before memory is reserved for this many offsets.
  if (size_t(count) > data.size() / sizeof(uint32_t)) throw FormatError("a BYTES tensor ends before its last element");
  std::vector<size_t> offsets;
  offsets.reserve(size_t(count) + 1);
  size_t at = 0;
  for (int64_t i = 0; i < count; i++) {
    offsets.push_back(at);
    uint32_t size;
    if (data.size() - at < sizeof size) throw FormatError("a BYTES tensor ends before its last element");
    memcpy(&size, data.data() + at, sizeof size);
    at += sizeof size;
    if (data.size() - at < size) throw FormatError("an element of a BYTES tensor is longer than the tensor");
    at += size;
  }
  if (at != data.size()) throw FormatError("a BYTES tensor has bytes after its last element");
  offsets.push_back(at);
  return offsets;
}

}  // namespace jigsaw
