#include "core/http.h"

#include <algorithm>
#include <charconv>
#include <cstring>

#include "core/json.h"

namespace jigsaw {
namespace {

constexpr size_t kInitialBufferBytes = 16 * 1024;

void append_span(std::string& out, std::string_view region, const RegionSpan& span) {
  out += ",\"parameters\":{\"shared_memory_region\":\"";
  out += region;
  out += "\",\"shared_memory_offset\":";
  append_number(out, int64_t(span.offset));
  out += ",\"shared_memory_byte_size\":";
  append_number(out, int64_t(span.size));
  out += '}';
}

std::string region_request(std::string_view region, std::string_view verb, std::string_view secret,
                           std::string_view body) {
  std::string text = "POST /v2/systemsharedmemory/region/";
  text += region;
  text += '/';
  text += verb;
  text += " HTTP/1.1\r\nHost: worker\r\nx-jigsaw-secret: ";
  text += secret;
  text += "\r\nContent-Length: ";
  append_number(text, int64_t(body.size()));
  text += "\r\n\r\n";
  text += body;
  return text;
}

std::string_view trimmed(std::string_view value) {
  while (!value.empty() && (value.front() == ' ' || value.front() == '\t')) value.remove_prefix(1);
  while (!value.empty() && (value.back() == ' ' || value.back() == '\t')) value.remove_suffix(1);
  return value;
}

}  // namespace

bool equals_ignoring_case(std::string_view name, std::string_view lower) {
  return name.size() == lower.size() &&
         std::equal(name.begin(), name.end(), lower.begin(), [](char a, char b) { return (a | 0x20) == b; });
}

size_t parse_length(std::string_view value) {
  size_t number = 0;
  auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (error != std::errc() || end != value.data() + value.size())
    throw FormatError("a length in the header is not a number");
  return number;
}

void for_each_header(std::string_view text, const std::function<void(std::string_view, std::string_view)>& use) {
  size_t end = text.find("\r\n");
  while (end != std::string_view::npos) {
    text.remove_prefix(end + 2);
    end = text.find("\r\n");
    std::string_view line = text.substr(0, end);
    size_t colon = line.find(':');
    if (colon == std::string_view::npos) throw FormatError("a line of the header has no colon");
    use(line.substr(0, colon), trimmed(line.substr(colon + 1)));
  }
}

void append_inference(std::string& out, std::string_view model, std::string_view id, const TraceHeaders& trace,
                      std::string_view region, std::span<const CallInput> inputs, std::span<const CallOutput> outputs) {
  std::string body;
  body.reserve(160 + 128 * (inputs.size() + outputs.size()));
  body += '{';
  if (!id.empty()) {
    body += "\"id\":";
    append_json(body, id);
    body += ',';
  }
  body += "\"inputs\":[";
  size_t total = 0;
  for (const CallInput& input : inputs) {
    if (&input != inputs.data()) body += ',';
    append_tensor(body, input.name, input.type, input.shape);
    if (input.placed) {
      append_span(body, region, *input.placed);
    } else {
      append_binary_size(body, input.size);
      total += input.size;
    }
    body += '}';
  }
  body += "],\"outputs\":[";
  for (const CallOutput& output : outputs) {
    if (&output != outputs.data()) body += ',';
    body += "{\"name\":";
    append_json(body, output.name);
    if (output.placed)
      append_span(body, region, *output.placed);
    else
      body += ",\"parameters\":{\"binary_data\":true}";
    body += '}';
  }
  body += "]}";
  out += "POST /v2/models/";
  out += model;
  out +=
      "/infer HTTP/1.1\r\nHost: worker\r\nContent-Type: application/octet-stream\r\nInference-Header-Content-Length: ";
  append_number(out, int64_t(body.size()));
  out += "\r\nContent-Length: ";
  append_number(out, int64_t(body.size() + total));
  if (!trace.parent.empty()) {
    out += "\r\ntraceparent: ";
    out += trace.parent;
  }
  if (!trace.state.empty()) {
    out += "\r\ntracestate: ";
    out += trace.state;
  }
  out += "\r\n\r\n";
  out += body;
}

std::string register_request(std::string_view region, size_t size, std::string_view secret) {
  std::string body = "{\"key\":\"/";
  body += region;
  body += "\",\"offset\":0,\"byte_size\":";
  append_number(body, int64_t(size));
  body += '}';
  return region_request(region, "register", secret, body);
}

std::string unregister_request(std::string_view region, std::string_view secret) {
  return region_request(region, "unregister", secret, "{}");
}

AnswerHead parse_answer_head(std::string_view text) {
  AnswerHead head;
  std::string_view line = text.substr(0, text.find("\r\n"));
  bool good = line.size() >= 12 && line.starts_with("HTTP/1.") && line[8] == ' ';
  if (good) {
    auto [stop, error] = std::from_chars(line.data() + 9, line.data() + 12, head.status);
    good = error == std::errc() && stop == line.data() + 12 && head.status >= 100 &&
           (line.size() == 12 || line[12] == ' ');
  }
  if (!good) throw FormatError("the answer is not HTTP");
  bool has_body = false, has_json = false;
  for_each_header(text, [&](std::string_view name, std::string_view value) {
    if (equals_ignoring_case(name, "content-length")) {
      head.body = parse_length(value);
      has_body = true;
    } else if (equals_ignoring_case(name, "inference-header-content-length")) {
      head.json = parse_length(value);
      has_json = true;
    } else if (equals_ignoring_case(name, "connection")) {
      head.closes = equals_ignoring_case(value, "close");
    } else if (equals_ignoring_case(name, "transfer-encoding")) {
      throw FormatError("the answer has a Transfer-Encoding; only Content-Length is supported");
    }
  });
  if (!has_body) throw FormatError("the answer has no Content-Length");
  if (!has_json) head.json = head.body;
  if (head.body > kMaxBodyBytes || head.json > head.body)
    throw FormatError("the lengths in the answer contradict each other");
  if (head.json > kMaxJsonBytes) throw FormatError("the answer's JSON is too long");
  return head;
}

std::vector<AnswerOutput> parse_answer(std::string_view text) {
  Json json = Json::parse(text);
  std::vector<AnswerOutput> outputs;
  for (const Json& item : json.at("outputs", "answer").array("answer.outputs")) {
    AnswerOutput output{parse_tensor(item, "output")};
    const Json* parameters = item.find("parameters");
    const Json* size = parameters ? parameters->find("binary_data_size") : nullptr;
    if (size) {
      int64_t bytes = size->integer("output.binary_data_size");
      if (bytes < 0 || uint64_t(bytes) > kMaxBodyBytes)
        throw FormatError("output " + output.name + " has an impossible size");
      output.size = size_t(bytes);
      check_size(output, output.size, "output");
    } else if (output.elements > 0) {
      if (item.find("data")) throw FormatError("output " + output.name + " is not in binary form");
      output.placed = true;
    }
    outputs.push_back(std::move(output));
  }
  return outputs;
}

std::string answer_error(std::string_view text, int status) {
  try {
    Json json = Json::parse(text);
    std::string reason = json.at("error", "answer").string("answer.error");
    // Triton puts the request id before some messages.
    if (reason.starts_with("[request id: ")) {
      size_t end = reason.find("] ");
      if (end != std::string::npos) reason.erase(0, end + 2);
    }
    return reason;
  } catch (const FormatError&) {
    return "HTTP status " + std::to_string(status) + " without a message";
  }
}

void AnswerReader::begin(bool inference) {
  inference_ = inference;
  state_ = State::kHead;
  head_ = {};
  filled_ = searched_ = body_start_ = 0;
  places_.clear();
  if (buffer_.size() < kInitialBufferBytes) buffer_.resize(kInitialBufferBytes);
}

std::span<iovec> AnswerReader::buffers() {
  if (state_ == State::kTensors) return places_.rest();
  if (filled_ == buffer_.size()) buffer_.resize(2 * buffer_.size());
  size_t room = buffer_.size() - filled_;
  // Do not read beyond the end of the answer: other bytes stay in the socket, where the next use of the connection
  // finds them.
  if (state_ == State::kJson) room = std::min(room, body_start_ + head_.body - filled_);
  single_ = {buffer_.data() + filled_, room};
  return {&single_, 1};
}

void AnswerReader::received(size_t count, const Place& place) {
  if (state_ == State::kTensors) {
    advance(count);
    return;
  }
  filled_ += count;
  if (state_ == State::kHead) read_head();
  if (state_ == State::kJson && filled_ >= body_start_ + head_.json) read_json(place);
}

void AnswerReader::read_head() {
  std::string_view text(buffer_.data(), filled_);
  size_t end = text.find("\r\n\r\n", searched_ < 3 ? 0 : searched_ - 3);
  searched_ = filled_;
  if (std::min(end, filled_) > kMaxHeadBytes) throw FormatError("the answer's header is too long");
  if (end == std::string_view::npos) return;
  head_ = parse_answer_head(text.substr(0, end));
  body_start_ = end + 4;
  if (filled_ > body_start_ + head_.body) throw FormatError("there are bytes after the end of the answer");
  size_t needed = body_start_ + head_.json;
  if (buffer_.size() < needed) buffer_.resize(needed + 1);
  state_ = State::kJson;
}

void AnswerReader::read_json(const Place& place) {
  if (head_.status != 200 || !inference_) {
    if (head_.body != head_.json) throw FormatError("an error answer contains tensors");
    state_ = State::kDone;
    return;
  }
  std::vector<AnswerOutput> outputs = parse_answer(text());
  size_t total = 0;
  for (const AnswerOutput& output : outputs) total += output.size;
  if (total != head_.body - head_.json)
    throw FormatError("the tensors of the answer have " + std::to_string(head_.body - head_.json) + " bytes where " +
                      std::to_string(total) + " were announced");
  std::vector<iovec>& places = places_.clear();
  place(outputs, places);
  size_t placed = 0;
  for (const iovec& at : places) placed += at.iov_len;
  if (placed != total) throw FormatError("the memory for the tensors has the wrong size");
  state_ = State::kTensors;
  advance(0);
  const char* from = buffer_.data() + body_start_ + head_.json;
  size_t left = filled_ - body_start_ - head_.json;
  while (left) {
    iovec& to = places_.rest()[0];
    size_t step = std::min(left, to.iov_len);
    memcpy(to.iov_base, from, step);
    from += step;
    left -= step;
    advance(step);
  }
}

void AnswerReader::advance(size_t count) {
  places_.skip(count);
  if (places_.empty()) state_ = State::kDone;
}

}  // namespace jigsaw
