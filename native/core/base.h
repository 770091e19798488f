// Time, data types and failures: definitions that all parts of the core share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <ctime>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace jigsaw {

// Nanoseconds of CLOCK_MONOTONIC, the clock that Triton's statistics use.
using Time = uint64_t;

inline constexpr Time kNever = UINT64_MAX;
inline constexpr Time kMillisecond = 1'000'000;
inline constexpr Time kSecond = 1'000'000'000;

inline Time now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return Time(t.tv_sec) * kSecond + Time(t.tv_nsec);
}

// Seconds since 1970.
inline double wall_seconds() {
  timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  return double(t.tv_sec) + double(t.tv_nsec) / 1e9;
}

// Returns a random number, so that two processes are unlikely to choose the same.
uint64_t random_number();

inline double milliseconds(Time duration) { return double(duration) / 1e6; }

// Triton's data types, with the numbers of TRITONSERVER_DataType.
enum class DataType : uint8_t {
  kInvalid,
  kBool,
  kUint8,
  kUint16,
  kUint32,
  kUint64,
  kInt8,
  kInt16,
  kInt32,
  kInt64,
  kFp16,
  kFp32,
  kFp64,
  kBytes,
  kBf16,
};

// Returns the bytes of one element; 0 for BYTES, whose elements vary in size.
size_t element_size(DataType type);

// Returns the name in the inference protocol, such as "FP32".
const char* name_of(DataType type);

// Returns the type with this name in the inference protocol, or kInvalid.
DataType data_type(std::string_view name);

using Shape = std::vector<int64_t>;

// Formats a shape, for example "[2, 16]".
std::string text_of(std::span<const int64_t> shape);

// Returns the shape of a stack of items.
Shape stack_of(int64_t items, const Shape& item);

// Returns the product of the dimensions. Returns nothing if a dimension is negative or the product exceeds 2^56; below
// this limit the number of bytes does not overflow either.
std::optional<int64_t> element_count(std::span<const int64_t> shape);

// Side at fault for a failure: the request itself, the model, or the workers (a later attempt may succeed). kCancelled
// means that the client cancelled the request.
enum class Blame : uint8_t { kRequest, kModel, kWorker, kCancelled };

struct Failure {
  Blame blame;
  std::string message;
};

inline Failure no_memory() { return {Blame::kWorker, "the gateway has no memory left for the request"}; }

// A specification, a route or an answer is malformed. The message says where and why.
struct FormatError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Finds the elements of a BYTES tensor, in which each element is a 4-byte length followed by that many bytes. Returns
// the offsets of `count` elements, and the end of the last one, relative to the start of `data`.
// Throws FormatError if the data does not contain exactly `count` elements.
std::vector<size_t> bytes_offsets(std::string_view data, int64_t count);

}  // namespace jigsaw
