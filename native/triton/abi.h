// Declarations of the part of Triton's backend ABI that this library uses. The server that loads the library defines
// the functions. They are weak, so that a server that lacks one is rejected by its API version, not by an undefined
// symbol.
#pragma once

#include <cstddef>
#include <cstdint>

// Version of the ABI that the library requires: this major version, and at least this minor version.
#define JIGSAW_BACKEND_API_MAJOR 1
#define JIGSAW_BACKEND_API_MINOR 19

extern "C" {

struct TRITONSERVER_Error;
struct TRITONSERVER_InferenceRequest;
struct TRITONSERVER_InferenceResponse;
struct TRITONSERVER_InferenceTrace;
struct TRITONSERVER_Message;
struct TRITONSERVER_Metric;
struct TRITONSERVER_MetricArgs;
struct TRITONSERVER_MetricFamily;
struct TRITONSERVER_Parameter;
struct TRITONSERVER_ResponseAllocator;
struct TRITONSERVER_Server;
struct TRITONBACKEND_Backend;
struct TRITONBACKEND_Input;
struct TRITONBACKEND_Model;
struct TRITONBACKEND_ModelInstance;
struct TRITONBACKEND_Output;
struct TRITONBACKEND_Request;
struct TRITONBACKEND_Response;

typedef enum {
  TRITONSERVER_ERROR_UNKNOWN,
  TRITONSERVER_ERROR_INTERNAL,
  TRITONSERVER_ERROR_NOT_FOUND,
  TRITONSERVER_ERROR_INVALID_ARG,
  TRITONSERVER_ERROR_UNAVAILABLE,
  TRITONSERVER_ERROR_UNSUPPORTED,
  TRITONSERVER_ERROR_ALREADY_EXISTS,
  TRITONSERVER_ERROR_CANCELLED
} TRITONSERVER_Error_Code;

typedef enum { TRITONSERVER_LOG_INFO, TRITONSERVER_LOG_WARN, TRITONSERVER_LOG_ERROR } TRITONSERVER_LogLevel;
typedef enum {
  TRITONSERVER_MEMORY_CPU,
  TRITONSERVER_MEMORY_CPU_PINNED,
  TRITONSERVER_MEMORY_GPU
} TRITONSERVER_MemoryType;
typedef enum {
  TRITONSERVER_METRIC_KIND_COUNTER,
  TRITONSERVER_METRIC_KIND_GAUGE,
  TRITONSERVER_METRIC_KIND_HISTOGRAM
} TRITONSERVER_MetricKind;
typedef enum { TRITONBACKEND_ARTIFACT_FILESYSTEM } TRITONBACKEND_ArtifactType;
typedef enum { TRITONSERVER_PARAMETER_STRING, TRITONSERVER_PARAMETER_INT } TRITONSERVER_ParameterType;

// The numbers are those of jigsaw::DataType.
typedef uint32_t TRITONSERVER_DataType;

#define TRITONSERVER_RESPONSE_COMPLETE_FINAL 1
#define TRITONSERVER_REQUEST_RELEASE_ALL 1

typedef TRITONSERVER_Error* (*TRITONSERVER_ResponseAllocatorAllocFn_t)(
    TRITONSERVER_ResponseAllocator* allocator, const char* name, size_t size, TRITONSERVER_MemoryType memory,
    int64_t memory_id, void* user, void** buffer, void** buffer_user, TRITONSERVER_MemoryType* actual_memory,
    int64_t* actual_memory_id);
typedef TRITONSERVER_Error* (*TRITONSERVER_ResponseAllocatorReleaseFn_t)(TRITONSERVER_ResponseAllocator* allocator,
                                                                         void* buffer, void* buffer_user, size_t size,
                                                                         TRITONSERVER_MemoryType memory,
                                                                         int64_t memory_id);
typedef TRITONSERVER_Error* (*TRITONSERVER_ResponseAllocatorStartFn_t)(TRITONSERVER_ResponseAllocator* allocator,
                                                                       void* user);
typedef void (*TRITONSERVER_InferenceRequestReleaseFn_t)(TRITONSERVER_InferenceRequest* request, const uint32_t flags,
                                                         void* user);
typedef void (*TRITONSERVER_InferenceResponseCompleteFn_t)(TRITONSERVER_InferenceResponse* response,
                                                           const uint32_t flags, void* user);

#define JIGSAW_WEAK __attribute__((weak))

JIGSAW_WEAK TRITONSERVER_Error* TRITONSERVER_ErrorNew(TRITONSERVER_Error_Code code, const char* message);
JIGSAW_WEAK void TRITONSERVER_ErrorDelete(TRITONSERVER_Error* error);
JIGSAW_WEAK TRITONSERVER_Error_Code TRITONSERVER_ErrorCode(TRITONSERVER_Error* error);
JIGSAW_WEAK const char* TRITONSERVER_ErrorMessage(TRITONSERVER_Error* error);
JIGSAW_WEAK TRITONSERVER_Error* TRITONSERVER_LogMessage(TRITONSERVER_LogLevel level, const char* file, int line,
                                                        const char* message);
JIGSAW_WEAK TRITONSERVER_Error* TRITONSERVER_MessageSerializeToJson(TRITONSERVER_Message* message, const char** base,
                                                                    size_t* size);
JIGSAW_WEAK TRITONSERVER_Error* TRITONSERVER_MessageDelete(TRITONSERVER_Message* message);
JIGSAW_WEAK TRITONSERVER_Parameter* TRITONSERVER_ParameterNew(const char* name, TRITONSERVER_ParameterType type,
                                                              const void* value);
JIGSAW_WEAK void TRITONSERVER_ParameterDelete(TRITONSERVER_Parameter* parameter);
JIGSAW_WEAK TRITONSERVER_Error* TRITONSERVER_MetricFamilyNew(TRITONSERVER_MetricFamily** family,
                                                             TRITONSERVER_MetricKind kind, const char* name,
                                                             const char* description);
JIGSAW_WEAK TRITONSERVER_Error* TRITONSERVER_MetricArgsNew(TRITONSERVER_MetricArgs** args);
JIGSAW_WEAK TRITONSERVER_Error* TRITONSERVER_MetricArgsSetHistogram(TRITONSERVER_MetricArgs* args,
                                                                    const double* buckets, uint64_t count);
JIGSAW_WEAK TRITONSERVER_Error* TRITONSERVER_MetricArgsDelete(TRITONSERVER_MetricArgs* args);
JIGSAW_WEAK TRITONSERVER_Error* TRITONSERVER_MetricNew(TRITONSERVER_Metric** metric, TRITONSERVER_MetricFamily* family,
                                                       const TRITONSERVER_Parameter** labels, uint64_t count);
JIGSAW_WEAK TRITONSERVER_Error* TRITONSERVER_MetricNewWithArgs(TRITONSERVER_Metric** metric,
                                                               TRITONSERVER_MetricFamily* family,
                                                               const TRITONSERVER_Parameter** labels, uint64_t count,
                                                               const TRITONSERVER_MetricArgs* args);
JIGSAW_WEAK TRITONSERVER_Error* TRITONSERVER_MetricDelete(TRITONSERVER_Metric* metric);
JIGSAW_WEAK TRITONSERVER_Error* TRITONSERVER_MetricIncrement(TRITONSERVER_Metric* metric, double value);
JIGSAW_WEAK TRITONSERVER_Error* TRITONSERVER_MetricSet(TRITONSERVER_Metric* metric, double value);
JIGSAW_WEAK TRITONSERVER_Error* TRITONSERVER_MetricObserve(TRITONSERVER_Metric* metric, double value);

JIGSAW_WEAK TRITONSERVER_Error* TRITONSERVER_ResponseAllocatorNew(TRITONSERVER_ResponseAllocator** allocator,
                                                                  TRITONSERVER_ResponseAllocatorAllocFn_t allocate,
                                                                  TRITONSERVER_ResponseAllocatorReleaseFn_t release,
                                                                  TRITONSERVER_ResponseAllocatorStartFn_t start);
JIGSAW_WEAK TRITONSERVER_Error* TRITONSERVER_ResponseAllocatorDelete(TRITONSERVER_ResponseAllocator* allocator);
JIGSAW_WEAK TRITONSERVER_Error* TRITONSERVER_InferenceRequestNew(TRITONSERVER_InferenceRequest** request,
                                                                 TRITONSERVER_Server* server, const char* model,
                                                                 const int64_t version);
JIGSAW_WEAK TRITONSERVER_Error* TRITONSERVER_InferenceRequestDelete(TRITONSERVER_InferenceRequest* request);
JIGSAW_WEAK TRITONSERVER_Error* TRITONSERVER_InferenceRequestSetId(TRITONSERVER_InferenceRequest* request,
                                                                   const char* id);
JIGSAW_WEAK TRITONSERVER_Error* TRITONSERVER_InferenceRequestSetStringParameter(TRITONSERVER_InferenceRequest* request,
                                                                                const char* key, const char* value);
JIGSAW_WEAK TRITONSERVER_Error* TRITONSERVER_InferenceRequestCancel(TRITONSERVER_InferenceRequest* request);
JIGSAW_WEAK TRITONSERVER_Error* TRITONSERVER_InferenceRequestAddInput(TRITONSERVER_InferenceRequest* request,
                                                                      const char* name,
                                                                      const TRITONSERVER_DataType type,
                                                                      const int64_t* shape, uint64_t dims);
JIGSAW_WEAK TRITONSERVER_Error* TRITONSERVER_InferenceRequestAppendInputData(TRITONSERVER_InferenceRequest* request,
                                                                             const char* name, const void* base,
                                                                             size_t size,
                                                                             TRITONSERVER_MemoryType memory,
                                                                             int64_t memory_id);
JIGSAW_WEAK TRITONSERVER_Error* TRITONSERVER_InferenceRequestAddRequestedOutput(TRITONSERVER_InferenceRequest* request,
                                                                                const char* name);
JIGSAW_WEAK TRITONSERVER_Error* TRITONSERVER_InferenceRequestSetReleaseCallback(
    TRITONSERVER_InferenceRequest* request, TRITONSERVER_InferenceRequestReleaseFn_t release, void* user);
JIGSAW_WEAK TRITONSERVER_Error* TRITONSERVER_InferenceRequestSetResponseCallback(
    TRITONSERVER_InferenceRequest* request, TRITONSERVER_ResponseAllocator* allocator, void* allocator_user,
    TRITONSERVER_InferenceResponseCompleteFn_t respond, void* user);
JIGSAW_WEAK TRITONSERVER_Error* TRITONSERVER_InferenceResponseError(TRITONSERVER_InferenceResponse* response);
JIGSAW_WEAK TRITONSERVER_Error* TRITONSERVER_InferenceResponseOutputCount(TRITONSERVER_InferenceResponse* response,
                                                                          uint32_t* count);
JIGSAW_WEAK TRITONSERVER_Error* TRITONSERVER_InferenceResponseOutput(TRITONSERVER_InferenceResponse* response,
                                                                     const uint32_t index, const char** name,
                                                                     TRITONSERVER_DataType* type, const int64_t** shape,
                                                                     uint64_t* dims, const void** base, size_t* size,
                                                                     TRITONSERVER_MemoryType* memory,
                                                                     int64_t* memory_id, void** user);
JIGSAW_WEAK TRITONSERVER_Error* TRITONSERVER_InferenceResponseDelete(TRITONSERVER_InferenceResponse* response);
JIGSAW_WEAK TRITONSERVER_Error* TRITONSERVER_ServerInferAsync(TRITONSERVER_Server* server,
                                                              TRITONSERVER_InferenceRequest* request,
                                                              TRITONSERVER_InferenceTrace* trace);

JIGSAW_WEAK TRITONSERVER_Error* TRITONBACKEND_ApiVersion(uint32_t* major, uint32_t* minor);
JIGSAW_WEAK TRITONSERVER_Error* TRITONBACKEND_ModelConfig(TRITONBACKEND_Model* model, uint32_t version,
                                                          TRITONSERVER_Message** config);
JIGSAW_WEAK TRITONSERVER_Error* TRITONBACKEND_ModelRepository(TRITONBACKEND_Model* model,
                                                              TRITONBACKEND_ArtifactType* type, const char** location);
JIGSAW_WEAK TRITONSERVER_Error* TRITONBACKEND_ModelVersion(TRITONBACKEND_Model* model, uint64_t* version);
JIGSAW_WEAK TRITONSERVER_Error* TRITONBACKEND_ModelServer(TRITONBACKEND_Model* model, TRITONSERVER_Server** server);
JIGSAW_WEAK TRITONSERVER_Error* TRITONBACKEND_ModelState(TRITONBACKEND_Model* model, void** state);
JIGSAW_WEAK TRITONSERVER_Error* TRITONBACKEND_ModelSetState(TRITONBACKEND_Model* model, void* state);
JIGSAW_WEAK TRITONSERVER_Error* TRITONBACKEND_ModelInstanceName(TRITONBACKEND_ModelInstance* instance,
                                                                const char** name);
JIGSAW_WEAK TRITONSERVER_Error* TRITONBACKEND_ModelInstanceModel(TRITONBACKEND_ModelInstance* instance,
                                                                 TRITONBACKEND_Model** model);
JIGSAW_WEAK TRITONSERVER_Error* TRITONBACKEND_ModelInstanceState(TRITONBACKEND_ModelInstance* instance, void** state);
JIGSAW_WEAK TRITONSERVER_Error* TRITONBACKEND_ModelInstanceSetState(TRITONBACKEND_ModelInstance* instance, void* state);
JIGSAW_WEAK TRITONSERVER_Error* TRITONBACKEND_ModelInstanceReportStatistics(TRITONBACKEND_ModelInstance* instance,
                                                                            TRITONBACKEND_Request* request,
                                                                            bool success, uint64_t exec_start,
                                                                            uint64_t compute_start,
                                                                            uint64_t compute_end, uint64_t exec_end);
JIGSAW_WEAK TRITONSERVER_Error* TRITONBACKEND_ModelInstanceReportBatchStatistics(TRITONBACKEND_ModelInstance* instance,
                                                                                 uint64_t batch, uint64_t exec_start,
                                                                                 uint64_t compute_start,
                                                                                 uint64_t compute_end,
                                                                                 uint64_t exec_end);
JIGSAW_WEAK TRITONSERVER_Error* TRITONBACKEND_RequestId(TRITONBACKEND_Request* request, const char** id);
JIGSAW_WEAK TRITONSERVER_Error* TRITONBACKEND_RequestIsCancelled(TRITONBACKEND_Request* request, bool* cancelled);
JIGSAW_WEAK TRITONSERVER_Error* TRITONBACKEND_InferenceRequestTimeoutMicroseconds(TRITONBACKEND_Request* request,
                                                                                  uint64_t* timeout);
JIGSAW_WEAK TRITONSERVER_Error* TRITONBACKEND_RequestParameterCount(TRITONBACKEND_Request* request, uint32_t* count);
JIGSAW_WEAK TRITONSERVER_Error* TRITONBACKEND_RequestParameter(TRITONBACKEND_Request* request, uint32_t index,
                                                               const char** key, TRITONSERVER_ParameterType* type,
                                                               const void** value);
JIGSAW_WEAK TRITONSERVER_Error* TRITONBACKEND_RequestInputCount(TRITONBACKEND_Request* request, uint32_t* count);
JIGSAW_WEAK TRITONSERVER_Error* TRITONBACKEND_RequestInput(TRITONBACKEND_Request* request, const char* name,
                                                           TRITONBACKEND_Input** input);
JIGSAW_WEAK TRITONSERVER_Error* TRITONBACKEND_RequestInputName(TRITONBACKEND_Request* request, uint32_t index,
                                                               const char** name);
JIGSAW_WEAK TRITONSERVER_Error* TRITONBACKEND_RequestOutputCount(TRITONBACKEND_Request* request, uint32_t* count);
JIGSAW_WEAK TRITONSERVER_Error* TRITONBACKEND_RequestOutputName(TRITONBACKEND_Request* request, uint32_t index,
                                                                const char** name);
JIGSAW_WEAK TRITONSERVER_Error* TRITONBACKEND_RequestRelease(TRITONBACKEND_Request* request, uint32_t flags);
JIGSAW_WEAK TRITONSERVER_Error* TRITONBACKEND_InputProperties(TRITONBACKEND_Input* input, const char** name,
                                                              TRITONSERVER_DataType* type, const int64_t** shape,
                                                              uint32_t* dims, uint64_t* size, uint32_t* buffers);
JIGSAW_WEAK TRITONSERVER_Error* TRITONBACKEND_InputBuffer(TRITONBACKEND_Input* input, uint32_t index,
                                                          const void** buffer, uint64_t* size,
                                                          TRITONSERVER_MemoryType* memory, int64_t* memory_id);
JIGSAW_WEAK TRITONSERVER_Error* TRITONBACKEND_ResponseNew(TRITONBACKEND_Response** response,
                                                          TRITONBACKEND_Request* request);
JIGSAW_WEAK TRITONSERVER_Error* TRITONBACKEND_ResponseDelete(TRITONBACKEND_Response* response);
JIGSAW_WEAK TRITONSERVER_Error* TRITONBACKEND_ResponseOutput(TRITONBACKEND_Response* response,
                                                             TRITONBACKEND_Output** output, const char* name,
                                                             TRITONSERVER_DataType type, const int64_t* shape,
                                                             uint32_t dims);
JIGSAW_WEAK TRITONSERVER_Error* TRITONBACKEND_OutputBuffer(TRITONBACKEND_Output* output, void** buffer, uint64_t size,
                                                           TRITONSERVER_MemoryType* memory, int64_t* memory_id);
JIGSAW_WEAK TRITONSERVER_Error* TRITONBACKEND_ResponseSend(TRITONBACKEND_Response* response, uint32_t flags,
                                                           TRITONSERVER_Error* error);

}  // extern "C"
