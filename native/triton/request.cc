#include "triton/request.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/http.h"
#include "triton/answer_gate.h"
#include "triton/calls.h"

namespace jigsaw {
namespace {

const char* blame_prefix(Blame blame) {
  switch (blame) {
    case Blame::kRequest:
      return "request: ";
    case Blame::kModel:
      return "model: ";
    default:
      return "worker: ";
  }
}

// A request of the server. Created for each request of an execution; deletes itself on `release`.
class TritonRequest : public Request {
 public:
  TritonRequest(Front& front, TRITONBACKEND_Request* request, TRITONBACKEND_ModelInstance* instance,
                RequestsInFlight& in_flight, Time begin)
      : front_(front), request_(request), instance_(instance), in_flight_(in_flight), begin_(begin) {
    const char* id = nullptr;
    log_failure(TRITONBACKEND_RequestId(request_, &id));
    if (id) id_ = id;
  }

  std::string_view id() const override { return id_; }

  bool cancelled() const override { return is_cancelled(request_); }

  char* allocate(size_t output, DataType type, const Shape& shape, size_t size) override {
    return allocate(front_.spec().outputs[output].name.c_str(), type, shape, size);
  }

  void respond(const Failure* failure, const Timing& timing) override {
    timing_ = timing;
    failed_ = failure != nullptr;
    if (!failure && wants_clock_) {
      try {
        char* to = allocate(kClockTensor, DataType::kInt64, {timing.items, 2}, size_t(timing.items) * sizeof clock_);
        for (int64_t i = 0; i < timing.items; i++) memcpy(to + size_t(i) * sizeof clock_, clock_, sizeof clock_);
      } catch (const std::exception&) {
        // Without the tensor, the next step uses its own time of arrival.
      }
    }
    TRITONBACKEND_Response* response = failure ? nullptr : std::exchange(response_, nullptr);
    TRITONSERVER_Error* error = nullptr;
    if (failure) {
      std::string message = front_.spec().blaming ? blame_prefix(failure->blame) + failure->message : failure->message;
      error = TRITONSERVER_ErrorNew(code_of(failure->blame), message.c_str());
    }
    // A failure gets a new response, because other threads may still write into the outputs of the first one.
    if (!response) log_failure(TRITONBACKEND_ResponseNew(&response, request_));
    if (response)
      AnswerGate::get().send(response, error);
    else if (error)
      TRITONSERVER_ErrorDelete(error);
  }

  void release() override {
    if (response_) log_failure(TRITONBACKEND_ResponseDelete(response_));
    Time end = now();
    Time sent = timing_.first_sent ? timing_.first_sent : end,
         received = timing_.last_received ? timing_.last_received : end;
    log_failure(
        TRITONBACKEND_ModelInstanceReportStatistics(instance_, request_, !failed_, begin_, sent, received, end));
    if (!failed_)
      log_failure(TRITONBACKEND_ModelInstanceReportBatchStatistics(
          instance_, uint64_t(std::max<int64_t>(1, timing_.items)), begin_, sent, received, end));
    log_failure(TRITONBACKEND_RequestRelease(request_, TRITONSERVER_REQUEST_RELEASE_ALL));
    RequestsInFlight& in_flight = in_flight_;
    delete this;
    in_flight.end();
  }

  // Passes the request to the core. The request may be deleted when this returns.
  void submit() {
    std::vector<Value> inputs;
    RequestOptions options;
    options.arrival = begin_;
    std::unique_ptr<Failure> failure;
    try {
      read(inputs, options);
    } catch (const std::exception& error) {
      failure = std::make_unique<Failure>(Failure{Blame::kRequest, error.what()});
    }
    if (failure) {
      respond(failure.get(), {begin_});
      release();
      return;
    }
    front_.submit(this, std::move(inputs), std::move(options));
  }

 private:
  char* allocate(const char* name, DataType type, const Shape& shape, size_t size) {
    std::lock_guard lock(mutex_);
    if (!response_) check(TRITONBACKEND_ResponseNew(&response_, request_));
    return output_buffer(response_, name, type, shape, size);
  }

  void read(std::vector<Value>& inputs, RequestOptions& options) {
    for (const BoundaryTensor& input : front_.spec().inputs) inputs.push_back(input_of(request_, input.name.c_str()));
    if (TRITONSERVER_Error* error = TRITONBACKEND_InferenceRequestTimeoutMicroseconds(request_, &options.timeout_us))
      TRITONSERVER_ErrorDelete(error);
    uint32_t count = 0;
    log_failure(TRITONBACKEND_RequestInputCount(request_, &count));
    if (front_.spec().clock && count > inputs.size()) {
      Value clock = input_of(request_, kClockTensor);
      if (clock.type == DataType::kInt64 && clock.size >= sizeof clock_) {
        memcpy(clock_, clock.data, sizeof clock_);
        if (clock_[0] > 0) options.arrival = Time(clock_[0]);
        if (clock_[1] > 0) options.deadline = Time(clock_[1]);
      }
    }
    if (!clock_[0]) {
      clock_[0] = int64_t(options.arrival);
      // Avoid an overflow: the timeout may be longer than an INT64 of nanoseconds.
      Time most = Time(INT64_MAX) - options.arrival;
      Time limit = options.timeout_us ? 1000 * std::min(options.timeout_us, most / 1000) : front_.slo();
      clock_[1] = int64_t(options.arrival + limit);
    }
    read_outputs(options);
    read_parameters(options);
  }

  void read_outputs(RequestOptions& options) {
    const auto& outputs = front_.spec().outputs;
    for (const std::string& name : output_names_of(request_)) {
      if (name == kClockTensor) {
        wants_clock_ = true;
        continue;
      }
      for (size_t o = 0; o < outputs.size(); o++)
        if (outputs[o].name == name) options.wanted.push_back(o);
    }
    std::sort(options.wanted.begin(), options.wanted.end());
    // The empty list stands for all outputs, which is the usual case.
    if (options.wanted.size() == outputs.size()) options.wanted.clear();
  }

  void read_parameters(RequestOptions& options) {
    uint32_t count = 0;
    log_failure(TRITONBACKEND_RequestParameterCount(request_, &count));
    for (uint32_t i = 0; i < count; i++) {
      const char* key = nullptr;
      TRITONSERVER_ParameterType type;
      const void* value = nullptr;
      check(TRITONBACKEND_RequestParameter(request_, i, &key, &type, &value));
      std::string_view name(key);
      if (type == TRITONSERVER_PARAMETER_INT && name == "jigsaw_priority") {
        int64_t priority;
        memcpy(&priority, value, sizeof priority);
        options.priority = int(std::clamp<int64_t>(priority, -1000, 1000));
      } else if (type == TRITONSERVER_PARAMETER_STRING && equals_ignoring_case(name, "traceparent")) {
        options.trace.parent = static_cast<const char*>(value);
      } else if (type == TRITONSERVER_PARAMETER_STRING && equals_ignoring_case(name, "tracestate")) {
        options.trace.state = static_cast<const char*>(value);
      }
    }
  }

  Front& front_;
  TRITONBACKEND_Request* request_;
  TRITONBACKEND_ModelInstance* instance_;
  RequestsInFlight& in_flight_;
  Time begin_;
  std::string id_;
  std::mutex mutex_;
  TRITONBACKEND_Response* response_ = nullptr;
  Timing timing_;
  int64_t clock_[2] = {0, 0};
  bool wants_clock_ = false;
  bool failed_ = false;
};

}  // namespace

void submit(Front& front, TRITONBACKEND_Request* request, TRITONBACKEND_ModelInstance* instance,
            RequestsInFlight& in_flight, Time begin) {
  (new TritonRequest(front, request, instance, in_flight, begin))->submit();
}

}  // namespace jigsaw
