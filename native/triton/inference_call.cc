#include "triton/inference_call.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "triton/calls.h"
#include "triton/listener.h"
#include "triton/served_connection.h"

namespace jigsaw {
namespace {

// Status of an answer with an error of the server, as Triton's HTTP endpoint chooses it.
int status_of(TRITONSERVER_Error_Code code) {
  switch (code) {
    case TRITONSERVER_ERROR_INVALID_ARG:
      return 400;
    case TRITONSERVER_ERROR_NOT_FOUND:
      return 404;
    case TRITONSERVER_ERROR_ALREADY_EXISTS:
      return 409;
    case TRITONSERVER_ERROR_CANCELLED:
      return 499;
    case TRITONSERVER_ERROR_UNSUPPORTED:
      return 501;
    case TRITONSERVER_ERROR_UNAVAILABLE:
      return 503;
    default:
      return 500;
  }
}

// Throws an error of the server.
void require(TRITONSERVER_Error* error) {
  if (!error) return;
  RequestError thrown(status_of(TRITONSERVER_ErrorCode(error)), TRITONSERVER_ErrorMessage(error));
  TRITONSERVER_ErrorDelete(error);
  throw thrown;
}

}  // namespace

InferenceCall::InferenceCall(Listener& listener, std::shared_ptr<ServedConnection> connection, RequestBody body,
                             ServedCall call, std::shared_ptr<MappedRegion> region)
    : listener_(listener),
      connection_(std::move(connection)),
      body_(std::move(body)),
      call_(std::move(call)),
      region_(std::move(region)) {}

void InferenceCall::submit(const std::string& model, const TraceHeaders& trace) {
  require(TRITONSERVER_InferenceRequestNew(&request_, listener_.server(), model.c_str(), -1));
  try {
    if (!call_.id.empty()) require(TRITONSERVER_InferenceRequestSetId(request_, call_.id.c_str()));
    for (const auto& [key, value] : {std::pair{"traceparent", &trace.parent}, {"tracestate", &trace.state}})
      if (!value->empty()) require(TRITONSERVER_InferenceRequestSetStringParameter(request_, key, value->c_str()));
    char* next = body_.tensors();
    for (const ServedInput& input : call_.inputs) {
      const char* data = input.placed ? region_->at(*input.placed) : next;
      if (!input.placed) next += input.size;
      const char* name = input.name.c_str();
      require(TRITONSERVER_InferenceRequestAddInput(request_, name, TRITONSERVER_DataType(input.type),
                                                    input.shape.data(), input.shape.size()));
      require(
          TRITONSERVER_InferenceRequestAppendInputData(request_, name, data, input.size, TRITONSERVER_MEMORY_CPU, 0));
    }
    for (const ServedOutput& output : call_.outputs) {
      if (output.placed) region_->at(*output.placed);
      require(TRITONSERVER_InferenceRequestAddRequestedOutput(request_, output.name.c_str()));
    }
    require(TRITONSERVER_InferenceRequestSetReleaseCallback(request_, on_release, this));
    require(TRITONSERVER_InferenceRequestSetResponseCallback(request_, listener_.allocator(), this, on_response, this));
    require(TRITONSERVER_ServerInferAsync(listener_.server(), request_, nullptr));
  } catch (const std::exception&) {
    log_failure(TRITONSERVER_InferenceRequestDelete(request_));
    throw;
  }
}

void InferenceCall::cancel() {
  if (request_) log_failure(TRITONSERVER_InferenceRequestCancel(request_));
}

const ServedOutput* InferenceCall::output(std::string_view name) const {
  auto found = std::ranges::find(call_.outputs, name, &ServedOutput::name);
  return found == call_.outputs.end() ? nullptr : &*found;
}

void InferenceCall::drop() {
  if (uses_.fetch_sub(1) > 1) return;
  if (response_) log_failure(TRITONSERVER_InferenceResponseDelete(response_));
  Listener& listener = listener_;
  delete this;
  listener.call_ended();
}

TRITONSERVER_Error* InferenceCall::allocate(TRITONSERVER_ResponseAllocator*, const char* name, size_t size,
                                            TRITONSERVER_MemoryType, int64_t, void* user, void** buffer,
                                            void** buffer_user, TRITONSERVER_MemoryType* memory, int64_t* memory_id) {
  *memory = TRITONSERVER_MEMORY_CPU;
  *memory_id = 0;
  *buffer = *buffer_user = nullptr;
  if (!size) return nullptr;
  auto* call = static_cast<InferenceCall*>(user);
  const ServedOutput* output = call->output(name);
  if (output && output->placed) {
    if (size > output->placed->size)
      return TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_INVALID_ARG,
                                   ("output " + output->name + " is larger than its part of the region").c_str());
    *buffer = call->region_->at(*output->placed);
    return nullptr;
  }
  *buffer = *buffer_user = malloc(size);
  if (!*buffer) return TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_UNAVAILABLE, "no memory is left for an output");
  return nullptr;
}

TRITONSERVER_Error* InferenceCall::free_buffer(TRITONSERVER_ResponseAllocator*, void*, void* buffer_user, size_t,
                                               TRITONSERVER_MemoryType, int64_t) {
  free(buffer_user);
  return nullptr;
}

void InferenceCall::build(TRITONSERVER_InferenceResponse* response, std::vector<iovec>& pieces) {
  if (!response) throw RequestError(500, "the model gave no response");
  require(TRITONSERVER_InferenceResponseError(response));
  uint32_t count = 0;
  require(TRITONSERVER_InferenceResponseOutputCount(response, &count));
  std::vector<AnsweredOutput> outputs;
  pieces.emplace_back();
  for (uint32_t i = 0; i < count; i++) {
    const char* name = nullptr;
    TRITONSERVER_DataType type = 0;
    const int64_t* shape = nullptr;
    uint64_t dims = 0;
    const void* base = nullptr;
    size_t size = 0;
    TRITONSERVER_MemoryType memory = TRITONSERVER_MEMORY_CPU;
    int64_t memory_id = 0;
    void* user = nullptr;
    require(TRITONSERVER_InferenceResponseOutput(response, i, &name, &type, &shape, &dims, &base, &size, &memory,
                                                 &memory_id, &user));
    const ServedOutput* wanted = output(name);
    bool placed = wanted && wanted->placed && size;
    outputs.push_back({name, DataType(type), {shape, dims}, size, placed});
    if (!placed && size) pieces.push_back({const_cast<void*>(base), size});
  }
  append_answer(head_, outputs);
  pieces[0] = {head_.data(), head_.size()};
}

void InferenceCall::on_response(TRITONSERVER_InferenceResponse* response, uint32_t flags, void* user) {
  auto* call = static_cast<InferenceCall*>(user);
  bool final = flags & TRITONSERVER_RESPONSE_COMPLETE_FINAL;
  if (call->answered_) {
    if (response) log_failure(TRITONSERVER_InferenceResponseDelete(response));
  } else if (response || final) {
    call->answered_ = true;
    call->response_ = response;
    std::vector<iovec> pieces;
    try {
      try {
        call->build(response, pieces);
      } catch (const RequestError& error) {
        call->head_.clear();
        append_error(call->head_, error.status, error.what(), false);
        pieces.assign(1, {call->head_.data(), call->head_.size()});
      }
      call->uses_++;
      if (!call->connection_->answer(call, std::move(pieces))) call->uses_--;
    } catch (const std::exception&) {
      call->connection_->abandon();
    }
  }
  if (final) call->drop();
}

void InferenceCall::on_release(TRITONSERVER_InferenceRequest* request, uint32_t, void* user) {
  auto* call = static_cast<InferenceCall*>(user);
  {
    std::lock_guard lock(call->connection_->mutex);
    call->request_ = nullptr;
  }
  log_failure(TRITONSERVER_InferenceRequestDelete(request));
  call->drop();
}

}  // namespace jigsaw
