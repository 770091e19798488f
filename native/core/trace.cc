#include "core/trace.h"

#include <algorithm>
#include <cstdio>

#include "core/json.h"
#include "core/task.h"
#include "core/trace_file.h"

namespace jigsaw {
namespace {

constexpr uint64_t kHashRange = uint64_t{1} << 32;
constexpr uint64_t kMaxTracesPerSecond = 20;
constexpr size_t kMaxIdLength = 128;

// Computes a CRC-32, as zlib does.
uint32_t crc32(std::string_view text) {
  uint32_t crc = 0xFFFFFFFF;
  for (unsigned char c : text) {
    crc ^= c;
    for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320 : 0);
  }
  return ~crc;
}

void member(std::string& out, const char* name, std::string_view text) {
  out += out.back() == '{' ? "\"" : ",\"";
  out += name;
  out += "\":";
  append_json(out, text);
}

void member(std::string& out, const char* name, double value, int digits) {
  char text[64];
  snprintf(text, sizeof text, "%s\"%s\":%.*f", out.back() == '{' ? "" : ",", name, digits, value);
  out += text;
}

}  // namespace

bool Sampler::choose(std::string_view id, Time at) {
  if (id.empty()) return false;
  if (!started_ || at - second_start_ >= kSecond) {
    hash_limit_ = seen_ ? kHashRange * std::min(kMaxTracesPerSecond, seen_) / seen_ : kHashRange;
    started_ = true;
    second_start_ = at;
    seen_ = 0;
    remaining_ = 2 * kMaxTracesPerSecond;
  }
  seen_++;
  if (!remaining_ || id.size() > kMaxIdLength || crc32(id) >= hash_limit_) return false;
  remaining_--;
  return true;
}

Hop Tracer::hop(const Job& job, std::string_view request, std::string_view graph, const char* outcome,
                const std::string& message, Time at) {
  const TaskSpec& spec = job.task->spec();
  // The time of a dispatch is taken at its start, which may be earlier than the arrival of the job.
  Time taken = job.first_sent ? std::max(job.first_sent, job.arrival) : at;
  std::string line = "{";
  member(line, "request", request);
  member(line, "graph", graph);
  member(line, "task", spec.name);
  member(line, "route", spec.route);
  member(line, "taken_s", wall_seconds() - double(now() - taken) / 1e9, 6);
  member(line, "waited_ms", milliseconds(taken - std::min(taken, job.arrival)), 3);
  member(line, "returned_ms", milliseconds(at - std::min(at, taken)), 3);
  member(line, "outcome", outcome);
  member(line, "message", message);
  line += ",\"calls\":[";
  for (const TracedCall& call : job.calls) {
    line += &call == job.calls.data() ? "{" : ",{";
    member(line, "worker", call.worker);
    member(line, "model", call.model);
    member(line, "variant", call.variant);
    member(line, "items", double(call.items), 0);
    member(line, "batch", double(call.batch), 0);
    member(line, "sent_ms", milliseconds(call.sent - std::min(call.sent, taken)), 3);
    member(line, "ended_ms", milliseconds(call.ended - std::min(call.ended, taken)), 3);
    member(line, "outcome", call.outcome);
    line += call.again ? ",\"again\":true" : ",\"again\":false";
    line += ",\"number\":" + std::to_string(call.number) + "}";
  }
  line += "]}\n";
  return {spec.route, std::move(line)};
}

void Tracer::write(const Hop& hop) {
  std::lock_guard lock(mutex_);
  append_line(folder_ + "/" + hop.route + ".jsonl", hop.line);
}

}  // namespace jigsaw
