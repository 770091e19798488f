#include "core/sampled_request.h"

#include <new>
#include <utility>

#include "core/engine.h"

namespace jigsaw {
namespace {

class SampledRequest : public Request {
 public:
  SampledRequest(Front& front, Request* request, TraceContext context, Time arrival)
      : front_(front), request_(request), context_(std::move(context)), arrival_(arrival) {}

  std::string_view id() const override { return request_->id(); }
  const TraceContext* trace() const override { return &context_; }
  bool cancelled() const override { return request_->cancelled(); }

  char* allocate(size_t output, DataType type, const Shape& shape, size_t size) override {
    return request_->allocate(output, type, shape, size);
  }

  void respond(const Failure* failure, const Timing& timing) override {
    request_->respond(failure, timing);
    // A front of one task sees only a part of the request.
    if (!front_.spec().clock) front_.engine().tracer().write(*this, front_, failure, arrival_, timing.items);
  }

  void release() override {
    Request* request = request_;
    delete this;
    request->release();
  }

 private:
  Front& front_;
  Request* request_;
  TraceContext context_;
  Time arrival_;
};

}  // namespace

Request* sampled(Front& front, Request* request, const RequestOptions& options) {
  auto context = front.engine().tracer().sample(options.trace, options.arrival, front.spec().clock);
  if (!context) return request;
  // Without memory for it, the request is served without a trace.
  auto* made = new (std::nothrow) SampledRequest(front, request, std::move(*context), options.arrival);
  return made ? made : request;
}

}  // namespace jigsaw
