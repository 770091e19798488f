#include "core/served_call.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <new>

#include "core/json.h"

namespace jigsaw {
namespace {

constexpr size_t kBufferBytes = 16 * 1024;

// Alignment of the first tensor of a request.
constexpr size_t kAlignment = alignof(std::max_align_t);

// Memory that is reserved for a body before any of it has arrived. A client may announce more than it sends.
constexpr size_t kInitialBodyBytes = 16 * 1024 * 1024;

size_t size_of(const Json& value, std::string_view where) {
  int64_t size = value.integer(where);
  if (size < 0 || size_t(size) > kMaxBodyBytes) throw FormatError(std::string(where) + " is not a valid size");
  return size_t(size);
}

// Returns the part of a region that the parameters of a tensor name; nothing if they name none.
std::optional<RegionSpan> span_of(const Json* parameters, std::string& region) {
  const Json* name = parameters ? parameters->find("shared_memory_region") : nullptr;
  if (!name) return {};
  const std::string& named = name->string("shared_memory_region");
  if (named.empty()) throw FormatError("Unable to find shared memory region: ''");
  if (!region.empty() && named != region) throw FormatError("the tensors of a call must share one region");
  region = named;
  const Json* offset = parameters->find("shared_memory_offset");
  return RegionSpan{offset ? size_of(*offset, "shared_memory_offset") : 0,
                    size_of(parameters->at("shared_memory_byte_size", "parameters"), "shared_memory_byte_size")};
}

ServedInput parse_input(const Json& item, std::string& region) {
  ServedInput input{parse_tensor(item, "input")};
  const Json* parameters = item.find("parameters");
  input.placed = span_of(parameters, region);
  if (input.placed)
    input.size = input.placed->size;
  else
    input.size = size_of(item.at("parameters", "input").at("binary_data_size", "input.parameters"), "binary_data_size");
  check_size(input, input.size, "input");
  return input;
}

void append_head(std::string& out, int status, std::string_view json_header, size_t json, size_t body, bool closes) {
  out += "HTTP/1.1 ";
  out += std::to_string(status);
  out += status == 200 ? " OK\r\n" : " Error\r\n";
  if (!json_header.empty()) {
    out += json_header;
    out += std::to_string(json);
    out += "\r\n";
  }
  if (closes) out += "Connection: close\r\n";
  out += "Content-Length: ";
  out += std::to_string(body);
  out += "\r\n\r\n";
}

}  // namespace

RequestHead parse_request_head(std::string_view text) {
  RequestHead head;
  std::string_view line = text.substr(0, text.find("\r\n"));
  size_t first = line.find(' '), last = line.rfind(' ');
  if (first == std::string_view::npos || last <= first + 1 || !line.substr(last + 1).starts_with("HTTP/1."))
    throw FormatError("the request is not HTTP");
  head.method = line.substr(0, first);
  head.path = line.substr(first + 1, last - first - 1);
  bool has_json = false;
  for_each_header(text, [&](std::string_view name, std::string_view value) {
    if (equals_ignoring_case(name, "content-length")) {
      head.body = parse_length(value);
    } else if (equals_ignoring_case(name, "inference-header-content-length")) {
      head.json = parse_length(value);
      has_json = true;
    } else if (equals_ignoring_case(name, "x-jigsaw-secret")) {
      head.secret = value;
    } else if (equals_ignoring_case(name, "traceparent")) {
      head.trace.parent = value;
    } else if (equals_ignoring_case(name, "tracestate")) {
      head.trace.state = value;
    } else if (equals_ignoring_case(name, "transfer-encoding")) {
      throw FormatError("the request has a Transfer-Encoding; only Content-Length is supported");
    }
  });
  if (!has_json) head.json = head.body;
  if (head.body > kMaxBodyBytes || head.json > head.body)
    throw FormatError("the lengths in the request contradict each other");
  if (head.json > kMaxJsonBytes) throw FormatError("the request's JSON is too long");
  return head;
}

ServedCall parse_call(std::string_view text, size_t tensors) {
  Json json = Json::parse(text);
  ServedCall call;
  if (const Json* id = json.find("id")) call.id = id->string("id");
  size_t total = 0;
  for (const Json& item : json.at("inputs", "request").array("request.inputs")) {
    ServedInput& input = call.inputs.emplace_back(parse_input(item, call.region));
    if (!input.placed) total += input.size;
  }
  if (total != tensors)
    throw FormatError("the tensors of the request have " + std::to_string(tensors) + " bytes where " +
                      std::to_string(total) + " were announced");
  if (const Json* outputs = json.find("outputs"))
    for (const Json& item : outputs->array("request.outputs")) {
      ServedOutput output;
      output.name = item.at("name", "output").string("output.name");
      output.placed = span_of(item.find("parameters"), call.region);
      call.outputs.push_back(std::move(output));
    }
  return call;
}

Registration parse_registration(std::string_view text) {
  Json json = Json::parse(text);
  return {json.at("key", "registration").string("registration.key"),
          size_of(json.at("byte_size", "registration"), "byte_size")};
}

std::span<char> RequestReader::room() {
  if (body_.memory) return {body_.start + received_, reserved_ - received_};
  if (filled_ == buffer_.size()) buffer_.resize(std::max(kBufferBytes, 2 * buffer_.size()));
  return {buffer_.data() + filled_, buffer_.size() - filled_};
}

void RequestReader::received(size_t count) {
  if (body_.memory) {
    received_ += count;
    if (received_ == reserved_ && reserved_ < body_.size) reserve(std::min(body_.size, 2 * reserved_));
  } else {
    filled_ += count;
    read_head();
  }
  done_ = body_.memory && received_ == body_.size;
}

void RequestReader::read_head() {
  std::string_view text(buffer_.data(), filled_);
  size_t end = text.find("\r\n\r\n", searched_ < 3 ? 0 : searched_ - 3);
  searched_ = filled_;
  if (std::min(end, filled_) > kMaxHeadBytes) throw FormatError("the request's header is too long");
  if (end == std::string_view::npos) return;
  head_ = parse_request_head(text.substr(0, end));
  std::string_view rest = text.substr(end + 4);
  if (rest.size() > head_.body) throw FormatError("bytes follow the request, which has not been answered yet");
  body_.size = head_.body;
  body_.json = head_.json;
  reserve(std::min(body_.size, kInitialBodyBytes));
  memcpy(body_.start, rest.data(), rest.size());
  received_ = rest.size();
  filled_ = searched_ = 0;
}

void RequestReader::reserve(size_t bytes) {
  size_t padding = (kAlignment - body_.json % kAlignment) % kAlignment;
  // The C library moves large memory without copying its bytes, so that other connections do not wait for that.
  auto* grown = static_cast<char*>(realloc(body_.memory.get(), padding + bytes + 1));
  if (!grown) throw std::bad_alloc();
  [[maybe_unused]] char* moved = body_.memory.release();
  body_.memory.reset(grown);
  body_.start = grown + padding;
  reserved_ = bytes;
}

RequestBody RequestReader::take() {
  received_ = 0;
  done_ = false;
  return std::move(body_);
}

void append_answer(std::string& out, std::span<const AnsweredOutput> outputs) {
  std::string body = "{\"outputs\":[";
  size_t total = 0;
  for (const AnsweredOutput& output : outputs) {
    if (&output != outputs.data()) body += ',';
    append_tensor(body, output.name, output.type, output.shape);
    if (!output.placed) {
      append_binary_size(body, output.size);
      total += output.size;
    }
    body += '}';
  }
  body += "]}";
  append_head(out, 200, "Inference-Header-Content-Length: ", body.size(), body.size() + total, false);
  out += body;
}

void append_error(std::string& out, int status, std::string_view message, bool closes) {
  std::string body = "{\"error\":";
  append_json(body, message);
  body += '}';
  append_head(out, status, "", 0, body.size(), closes);
  out += body;
}

void append_empty_answer(std::string& out) { append_head(out, 200, "", 0, 0, false); }

}  // namespace jigsaw
