// Declarations of the part of ONNX Runtime's C API that this library uses, so that it can be built without the headers
// of ONNX Runtime. The API is a table of functions to which each version only appends. A function is therefore
// identified by its place in the table, which is that in `struct OrtApi` of onnxruntime_c_api.h.
#pragma once

#include <cstddef>
#include <cstdint>

namespace jigsaw::onnx {

// Version of the API that the library requires: the first one that has all of these functions. The package onnxruntime
// contains the library since release 1.19.
inline constexpr uint32_t kApiVersion = 15;

struct OrtAllocator;
struct OrtCUDAProviderOptionsV2;
struct OrtEnv;
struct OrtMemoryInfo;
struct OrtRunOptions;
struct OrtSession;
struct OrtSessionOptions;
struct OrtStatus;
struct OrtTensorTypeAndShapeInfo;
struct OrtTypeInfo;
struct OrtValue;

// Elements of a tensor: ONNXTensorElementDataType.
enum ElementType : int {
  kUndefined,
  kFloat,
  kUint8,
  kInt8,
  kUint16,
  kInt16,
  kInt32,
  kInt64,
  kString,
  kBool,
  kFloat16,
  kDouble,
  kUint32,
  kUint64,
  kComplex64,
  kComplex128,
  kBfloat16,
};

inline constexpr int kLogWarnings = 2;     // OrtLoggingLevel
inline constexpr int kArenaAllocator = 1;  // OrtAllocatorType
inline constexpr int kDefaultMemory = 0;   // OrtMemType

using Table = void* const*;

// A function of the table.
template <size_t kPlace, typename Signature>
class Function;

template <size_t kPlace, typename Result, typename... Arguments>
class Function<kPlace, Result(Arguments...)> {
 public:
  explicit Function(Table table) : function_(reinterpret_cast<Result (*)(Arguments...)>(table[kPlace])) {}
  Result operator()(Arguments... arguments) const { return function_(arguments...); }

 private:
  Result (*function_)(Arguments...);
};

// The functions. A function that returns a status returns nullptr if it succeeds.
struct Api {
  explicit Api(Table functions) : table(functions) {}

  Table table;
  Function<2, const char*(const OrtStatus*)> message{table};
  Function<3, OrtStatus*(int, const char*, OrtEnv**)> create_env{table};
  Function<7, OrtStatus*(const OrtEnv*, const char*, const OrtSessionOptions*, OrtSession**)> create_session{table};
  Function<9, OrtStatus*(OrtSession*, const OrtRunOptions*, const char* const*, const OrtValue* const*, size_t,
                         const char* const*, size_t, OrtValue**)>
      run{table};
  Function<10, OrtStatus*(OrtSessionOptions**)> create_session_options{table};
  Function<24, OrtStatus*(OrtSessionOptions*, int)> set_intra_op_threads{table};
  Function<25, OrtStatus*(OrtSessionOptions*, int)> set_inter_op_threads{table};
  Function<30, OrtStatus*(const OrtSession*, size_t*)> input_count{table};
  Function<31, OrtStatus*(const OrtSession*, size_t*)> output_count{table};
  Function<32, OrtStatus*(const OrtSession*, size_t*)> default_count{table};
  Function<33, OrtStatus*(const OrtSession*, size_t, OrtTypeInfo**)> input_type{table};
  Function<34, OrtStatus*(const OrtSession*, size_t, OrtTypeInfo**)> output_type{table};
  Function<35, OrtStatus*(const OrtSession*, size_t, OrtTypeInfo**)> default_type{table};
  Function<36, OrtStatus*(const OrtSession*, size_t, OrtAllocator*, char**)> input_name{table};
  Function<37, OrtStatus*(const OrtSession*, size_t, OrtAllocator*, char**)> output_name{table};
  Function<38, OrtStatus*(const OrtSession*, size_t, OrtAllocator*, char**)> default_name{table};
  Function<48, OrtStatus*(OrtAllocator*, const int64_t*, size_t, int, OrtValue**)> create_tensor{table};
  Function<49, OrtStatus*(const OrtMemoryInfo*, void*, size_t, const int64_t*, size_t, int, OrtValue**)> wrap_tensor{
      table};
  Function<50, OrtStatus*(const OrtValue*, int*)> is_tensor{table};
  Function<51, OrtStatus*(OrtValue*, void**)> tensor_data{table};
  Function<53, OrtStatus*(const OrtValue*, size_t*)> strings_size{table};
  Function<54, OrtStatus*(const OrtValue*, void*, size_t, size_t*, size_t)> strings_content{table};
  Function<55, OrtStatus*(const OrtTypeInfo*, const OrtTensorTypeAndShapeInfo**)> tensor_info{table};
  Function<60, OrtStatus*(const OrtTensorTypeAndShapeInfo*, int*)> element_type{table};
  Function<61, OrtStatus*(const OrtTensorTypeAndShapeInfo*, size_t*)> rank{table};
  Function<62, OrtStatus*(const OrtTensorTypeAndShapeInfo*, int64_t*, size_t)> dimensions{table};
  Function<65, OrtStatus*(const OrtValue*, OrtTensorTypeAndShapeInfo**)> tensor_info_of{table};
  Function<69, OrtStatus*(int, int, OrtMemoryInfo**)> create_cpu_memory{table};
  Function<76, OrtStatus*(OrtAllocator*, void*)> free{table};
  Function<78, OrtStatus*(OrtAllocator**)> default_allocator{table};
  Function<93, void(OrtStatus*)> release_status{table};
  Function<94, void(OrtMemoryInfo*)> release_memory{table};
  Function<95, void(OrtSession*)> release_session{table};
  Function<96, void(OrtValue*)> release_value{table};
  Function<98, void(OrtTypeInfo*)> release_type{table};
  Function<99, void(OrtTensorTypeAndShapeInfo*)> release_tensor_info{table};
  Function<100, void(OrtSessionOptions*)> release_session_options{table};
  Function<125, OrtStatus*(char***, int*)> providers{table};
  Function<126, OrtStatus*(char**, int)> release_providers{table};
  Function<130, OrtStatus*(OrtSessionOptions*, const char*, const char*)> set_session_config{table};
  Function<204, OrtStatus*(OrtSessionOptions*, const OrtCUDAProviderOptionsV2*)> use_cuda{table};
  Function<205, OrtStatus*(OrtCUDAProviderOptionsV2**)> create_cuda_options{table};
  Function<208, void(OrtCUDAProviderOptionsV2*)> release_cuda_options{table};
  Function<252, OrtStatus*(OrtValue*, size_t, size_t, char**)> string_buffer{table};
};

// The result of OrtGetApiBase.
struct ApiBase {
  Table (*api)(uint32_t version);  // nullptr if the library does not have this version.
  const char* (*release)();
};

}  // namespace jigsaw::onnx
