#include "core/trace_context.h"

#include <algorithm>
#include <cstdio>

namespace jigsaw {
namespace {

// Length of a state that everybody must pass on, by the specification.
constexpr size_t kMaxStateLength = 512;

// Mixes the bits of a number; a bijection (the finalizer of SplitMix64).
uint64_t mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15;
  x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9;
  x = (x ^ x >> 27) * 0x94D049BB133111EB;
  return x ^ x >> 31;
}

// Returns a valid id of a span, which is not 0.
uint64_t span_id(uint64_t x) {
  uint64_t span = mix(x);
  return span ? span : 1;
}

// Reads lower-case hexadecimal digits. Returns nothing if there is another character.
std::optional<uint64_t> hexadecimal(std::string_view text) {
  uint64_t number = 0;
  for (char c : text) {
    if (c >= '0' && c <= '9')
      number = number << 4 | uint64_t(c - '0');
    else if (c >= 'a' && c <= 'f')
      number = number << 4 | uint64_t(c - 'a' + 10);
    else
      return {};
  }
  return number;
}

}  // namespace

std::string TraceId::text() const { return span_text(high) + span_text(low); }

std::string span_text(uint64_t span) {
  char text[17];
  snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(span));
  return text;
}

std::optional<TraceParent> TraceParent::parse(std::string_view text) {
  constexpr size_t kSize = 55;
  // Version 0 has exactly this form. Later versions begin with it, and may go on after another dash.
  if (text.size() < kSize || text[2] != '-' || text[35] != '-' || text[52] != '-') return {};
  auto version = hexadecimal(text.substr(0, 2)), high = hexadecimal(text.substr(3, 16)),
       low = hexadecimal(text.substr(19, 16)), span = hexadecimal(text.substr(36, 16)),
       flags = hexadecimal(text.substr(53, 2));
  if (!version || !high || !low || !span || !flags || *version == 0xFF) return {};
  if (text.size() > kSize && (*version == 0 || text[kSize] != '-')) return {};
  if ((!*high && !*low) || !*span) return {};
  return TraceParent{{*high, *low}, *span, (*flags & 1) != 0};
}

uint64_t TraceContext::span_of_call(uint64_t number) const { return span_id(span ^ mix(number)); }

TraceHeaders TraceContext::headers_of_call(uint64_t number) const {
  return {"00-" + trace.text() + "-" + span_text(span_of_call(number)) + "-01", state};
}

std::string_view valid_state(std::string_view text) {
  bool printable = std::ranges::all_of(text, [](char c) { return c >= ' ' && c <= '~'; });
  return printable && text.size() <= kMaxStateLength ? text : std::string_view();
}

ContextSource::ContextSource() : salt_(random_number()) {}

std::optional<TraceContext> ContextSource::choose(const TraceHeaders& client, double share, Time arrival,
                                                  uint64_t number) const {
  uint64_t draw = mix(salt_ ^ mix(arrival) ^ number);
  TraceContext context;
  context.span = span_id(draw ^ salt_);
  if (std::optional<TraceParent> parent = TraceParent::parse(client.parent)) {
    if (!parent->sampled) return {};
    context.trace = parent->trace;
    context.parent = parent->span;
    // A client may send several requests at once in one of its spans.
    context.span = span_id(context.span ^ parent->span);
    context.state = valid_state(client.state);
    return context;
  }
  if (double(draw >> 11) * 0x1p-53 >= share) return {};
  context.trace = {mix(draw), span_id(draw ^ arrival)};
  return context;
}

}  // namespace jigsaw
