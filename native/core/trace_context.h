// W3C's trace context, by which a request belongs to the trace of its client.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "core/base.h"

namespace jigsaw {

// Id of a trace: 128 bits, not all of them 0.
struct TraceId {
  uint64_t high = 0, low = 0;

  // Returns 32 hexadecimal digits.
  std::string text() const;
};

// Context that a client sends.
struct TraceParent {
  TraceId trace;
  uint64_t span = 0;     // Span of the client.
  bool sampled = false;  // True if the client records the trace.

  // Parses the value of the header `traceparent`. Returns nothing if it is not valid, or of version 255.
  static std::optional<TraceParent> parse(std::string_view text);
};

// Headers by which a context travels. Both are empty if there is none.
struct TraceHeaders {
  std::string parent;  // Value of `traceparent`.
  std::string state;   // Value of `tracestate`: what systems on the way have added.
};

// Context of a request that is sampled.
struct TraceContext {
  TraceId trace;
  uint64_t span = 0;    // Span of the request at the gateway.
  uint64_t parent = 0;  // Span of the client; 0 if it sent none.
  std::string state;    // State of the trace, as the client sent it; empty for none.

  // Returns the span of a call for the request. It is the same in each thread that asks for it.
  uint64_t span_of_call(uint64_t number) const;

  // Returns the headers of a call, for the server that it is sent to.
  TraceHeaders headers_of_call(uint64_t number) const;
};

// Returns 16 hexadecimal digits.
std::string span_text(uint64_t span);

// Returns the value of a header `tracestate` as it is passed on; nothing if it is too long, or is not printable ASCII.
std::string_view valid_state(std::string_view text);

// Decides which requests are sampled, and gives them their contexts.
class ContextSource {
 public:
  ContextSource();

  // Returns the context of a request to sample; nothing if it is not to be sampled. A client's context decides; without
  // one, the share does. The result depends on the arguments alone, so that all fronts of a pipeline, which are given
  // the arrival of the whole request, choose the same requests. `number` distinguishes other requests that
  // arrive in the same nanosecond. Thread-safe.
  std::optional<TraceContext> choose(const TraceHeaders& client, double share, Time arrival, uint64_t number) const;

 private:
  const uint64_t salt_;
};

}  // namespace jigsaw
