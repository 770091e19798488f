#include "core/trace.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdio>

#include "core/front.h"
#include "core/json.h"
#include "core/task.h"
#include "core/trace_file.h"

namespace jigsaw {
namespace {

constexpr uint64_t kHashRange = uint64_t{1} << 32;
constexpr uint64_t kMaxTracesPerSecond = 20;
constexpr size_t kMaxIdLength = 128;

// Clients may ask for more samples, but each of them is written to a file.
constexpr uint64_t kMaxSamplesPerSecond = 500;

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

// Appends the ids and the state of a request's trace, or null.
void trace_member(std::string& out, const TraceContext* trace) {
  out += ",\"trace\":";
  if (!trace) {
    out += "null";
    return;
  }
  out += "{\"id\":\"" + trace->trace.text() + "\",\"span\":\"" + span_text(trace->span) + "\",\"parent\":\"" +
         (trace->parent ? span_text(trace->parent) : "") + "\"";
  member(out, "state", trace->state);
  out += '}';
}

const char* outcome_of(const Failure* failure) {
  if (!failure) return "answered";
  switch (failure->blame) {
    case Blame::kRequest:
      return "request";
    case Blame::kModel:
      return "model";
    case Blame::kWorker:
      return "worker";
    case Blame::kCancelled:
      return "cancelled";
  }
  return "model";
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

std::string traced_name(const Request& request) {
  std::string_view id = request.id();
  const TraceContext* trace = request.trace();
  if (trace && (id.empty() || id.size() > kMaxIdLength)) return trace->trace.text();
  return std::string(id);
}

Tracer::Tracer(const std::string& run_dir, MetricRegistry& metrics)
    : folder_(run_dir + "/traces/gateway"),
      share_path_(run_dir + "/traced_share"),
      recorded_(metrics.counter(
          "jigsaw_traces_total",
          "Requests that are sampled, by outcome: `recorded`, or `dropped` because more than 500 in a second were.",
          {{"outcome", "recorded"}})),
      dropped_(metrics.counter(
          "jigsaw_traces_total",
          "Requests that are sampled, by outcome: `recorded`, or `dropped` because more than 500 in a second were.",
          {{"outcome", "dropped"}})) {
  refresh_share();
}

void Tracer::refresh_share() {
  double share = -1;
  int file = open(share_path_.c_str(), O_RDONLY | O_CLOEXEC);
  if (file >= 0) {
    char text[64];
    ssize_t n = read(file, text, sizeof text);
    close(file);
    if (n > 0) std::from_chars(text, text + n, share);
  }
  share_ = share >= 0 && share <= 1 ? share : -1;
}

std::optional<TraceContext> Tracer::sample(const TraceHeaders& client, Time arrival, bool pipeline) {
  double share = share_;
  if (share < 0) return {};
  auto context = contexts_.choose(client, share, arrival, pipeline ? 0 : ++requests_);
  if (!context) return {};
  bool within = within_limit();
  (within ? recorded_ : dropped_).add(1);
  if (!within) return {};
  return context;
}

bool Tracer::within_limit() {
  Time at = now();
  std::lock_guard lock(limit_mutex_);
  if (at < limit_start_ || at - limit_start_ >= kSecond) {
    limit_start_ = at;
    limit_used_ = 0;
  }
  return ++limit_used_ <= kMaxSamplesPerSecond;
}

Hop Tracer::hop(const Job& job, const Request& request, const FrontSpec& front, const char* outcome,
                const std::string& message, Time at) {
  const TaskSpec& spec = job.task->spec();
  // The time of a dispatch is taken at its start, which may be earlier than the arrival of the job.
  Time taken = job.first_sent ? std::max(job.first_sent, job.arrival) : at;
  std::string line = "{";
  const TraceContext* trace = request.trace();
  member(line, "request", traced_name(request));
  member(line, "graph", front.graph);
  member(line, "task", spec.name);
  member(line, "route", spec.route);
  member(line, "taken_s", wall_seconds() - double(now() - taken) / 1e9, 6);
  member(line, "waited_ms", milliseconds(taken - std::min(taken, job.arrival)), 3);
  member(line, "returned_ms", milliseconds(at - std::min(at, taken)), 3);
  member(line, "outcome", outcome);
  member(line, "message", message);
  trace_member(line, trace);
  line += front.clock ? ",\"partial\":true" : ",\"partial\":false";
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
    line += ",\"number\":" + std::to_string(call.number);
    line += ",\"span\":\"" + (trace ? span_text(trace->span_of_call(call.number)) : "") + "\"}";
  }
  line += "]}\n";
  return {spec.route, std::move(line)};
}

void Tracer::write(const Hop& hop) {
  std::lock_guard lock(mutex_);
  append_line(folder_ + "/" + hop.route + ".jsonl", hop.line);
}

void Tracer::write(const Request& request, const Front& front, const Failure* failure, Time arrival, int64_t items) {
  Time took = now() - arrival;
  std::string line = "{";
  member(line, "request", request.id());
  member(line, "graph", front.spec().graph);
  member(line, "model", front.model());
  member(line, "arrived_s", wall_seconds() - double(took) / 1e9, 6);
  member(line, "took_ms", milliseconds(took), 3);
  member(line, "items", double(items), 0);
  member(line, "outcome", outcome_of(failure));
  member(line, "message", failure ? failure->message : "");
  trace_member(line, request.trace());
  line += "}\n";
  std::lock_guard lock(mutex_);
  append_line(folder_ + "/requests/" + front.spec().graph + ".jsonl", line);
}

}  // namespace jigsaw
