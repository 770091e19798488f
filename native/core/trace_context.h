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

// Context of a request that is sampled.
struct TraceContext {
  TraceId trace;
  uint64_t span = 0;    // Span of the request at the gateway.
  uint64_t parent = 0;  // Span of the client; 0 if it sent none.

  // Returns the span of a call for the request. It is the same in each thread that asks for it.
  uint64_t span_of_call(uint64_t number) const;

  // Returns the value of the header `traceparent` of a call, for the server that it is sent to.
  std::string header_of_call(uint64_t number) const;
};

// Returns 16 hexadecimal digits.
std::string span_text(uint64_t span);

// Decides which requests are sampled, and gives them their contexts.
class ContextSource {
 public:
  ContextSource();

  // Returns the context of a request to sample; nothing if it is not to be sampled. A client's context decides; without
  // one, the share does. The result depends on the arguments alone, so that all fronts of a pipeline, which are given
  // the arrival of the whole request, choose the same requests. `number` distinguishes other requests that
  // arrive in the same nanosecond. Thread-safe.
  std::optional<TraceContext> choose(std::string_view traceparent, double share, Time arrival, uint64_t number) const;

 private:
  const uint64_t salt_;
};

}  // namespace jigsaw
