// Time, data types and outcomes that every part of the core shares.
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

// Nanoseconds of CLOCK_MONOTONIC, the clock of Triton's statistics.
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

// A number that no other process is likely to draw.
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

// Bytes of one element; 0 for BYTES, whose elements vary.
size_t element_size(DataType type);

// The name that the inference protocol uses, such as "FP32".
const char* name_of(DataType type);

// kInvalid where no type has that name.
DataType data_type(std::string_view name);

using Shape = std::vector<int64_t>;

// "[2, 16]".
std::string text_of(std::span<const int64_t> shape);

// Product of dimensions, or nothing where one is negative or the product exceeds 2^56: bytes of so many elements can be
// counted, too.
std::optional<int64_t> element_count(std::span<const int64_t> shape);

// Whose fault a failure is: the request's own, a model's, the workers' (later may help), or nobody's: it was cancelled.
enum class Blame : uint8_t { kRequest, kModel, kWorker, kCancelled };

struct Failure {
  Blame blame;
  std::string message;
};

inline Failure no_memory() { return {Blame::kWorker, "the gateway has no memory left for the request"}; }

// A specification, a route or an answer that cannot be used. The message says where and why.
struct FormatError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Sizes of the elements of a BYTES tensor: each element is a 4-byte length and that many bytes. Returns the offsets
// of `count` elements and the end, relative to the start of `data`.
// Throws FormatError where the data holds another number of elements.
std::vector<size_t> bytes_offsets(std::string_view data, int64_t count);

}  // namespace jigsaw
