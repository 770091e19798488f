#include "core/run_trace.h"

#include <algorithm>
#include <charconv>
#include <cstdio>

#include "core/json.h"
#include "core/trace_file.h"

namespace jigsaw {

CallId CallId::parse(std::string_view text) {
  size_t end = text.rfind('#');
  CallId call;
  if (end == std::string_view::npos) return call;
  const char* last = text.data() + text.size();
  if (auto [at, error] = std::from_chars(text.data() + end + 1, last, call.token); error != std::errc() || at != last)
    return {};
  for (size_t begin = 0; begin < end;) {
    size_t comma = std::min(text.find(',', begin), end);
    call.ids.emplace_back(text.substr(begin, comma - begin));
    begin = comma + 1;
  }
  return call;
}

void RunTrace::write(const std::vector<CallId>& calls, Time began, int64_t items) const {
  if (path_.empty() || std::ranges::all_of(calls, [](const CallId& call) { return call.ids.empty(); })) return;
  Time took = now() - began;
  std::string ids, tokens;
  for (const CallId& call : calls) {
    if (call.ids.empty()) continue;
    for (const std::string& id : call.ids) {
      if (!ids.empty()) ids += ',';
      append_json(ids, id);
    }
    tokens += (tokens.empty() ? "" : ",") + std::to_string(call.token);
  }
  std::string line = "{\"ids\":[" + ids + "],\"tokens\":[" + tokens + "],\"worker\":";
  append_json(line, worker_);
  line += ",\"model\":";
  append_json(line, model_);
  char times[128];
  snprintf(times, sizeof times, ",\"began_s\":%.6f,\"took_ms\":%.3f,\"items\":%lld}\n",
           wall_seconds() - double(took) / 1e9, milliseconds(took), static_cast<long long>(items));
  append_line(path_, line + times);
}

}  // namespace jigsaw
