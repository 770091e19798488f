// Server side of the calls that `connection.h` sends: reads requests and builds answers.
#pragma once

#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/base.h"
#include "core/http.h"
#include "core/trace_context.h"

namespace jigsaw {

// Header of a request.
struct RequestHead {
  std::string method, path;
  size_t body = 0;     // Bytes of the body.
  size_t json = 0;     // Bytes of JSON at the start of the body.
  std::string secret;  // Secret of the deployment; empty if the request has none.
  TraceHeaders trace;
};

// Parses an HTTP header without the empty line at its end. Throws FormatError.
RequestHead parse_request_head(std::string_view text);

// An input of a call that was received. Its bytes follow the JSON, or are in shared memory if `placed` is set.
struct ServedInput : TensorHead {
  size_t size = 0;
  std::optional<RegionSpan> placed{};
};

// An output that a call requests. Its bytes go to shared memory if `placed` is set.
struct ServedOutput {
  std::string name;
  std::optional<RegionSpan> placed;
};

// The JSON of a call.
struct ServedCall {
  std::string id;
  std::string region;  // Region of the tensors in shared memory; empty if there are none.
  std::vector<ServedInput> inputs;
  std::vector<ServedOutput> outputs;  // Empty to request all outputs.
};

// Parses the JSON of a call that `tensors` bytes follow. Throws FormatError.
ServedCall parse_call(std::string_view text, size_t tensors);

// Request to map a region of shared memory.
struct Registration {
  std::string key;  // Name of the region, with the leading slash.
  size_t size = 0;
};

// Parses the JSON of a registration. Throws FormatError.
Registration parse_registration(std::string_view text);

// Body of a request: JSON, then tensors.
struct RequestBody {
  struct Free {
    void operator()(char* allocated) const { free(allocated); }
  };

  std::unique_ptr<char, Free> memory;
  char* start = nullptr;
  size_t size = 0;
  size_t json = 0;

  std::string_view text() const { return {start, json}; }
  char* tensors() const { return start + json; }
};

// Reads one request at a time from pieces of any size. Not thread-safe.
class RequestReader {
 public:
  // Returns the memory for the next bytes. It is never empty while `done()` is false.
  std::span<char> room();

  // Processes `count` bytes that were written to `room()`. Throws FormatError if they are not a valid request; then
  // the reader must not be used again. Throws std::bad_alloc if there is no memory for the body.
  void received(size_t count);

  bool done() const { return done_; }

  const RequestHead& head() const { return head_; }

  // Returns the body of the request that is done, and starts to read the next one.
  RequestBody take();

 private:
  // Parses the header once it is complete.
  void read_head();

  // Makes room for this many bytes of the body.
  void reserve(size_t bytes);

  std::vector<char> buffer_;
  size_t filled_ = 0;    // Bytes of the header in `buffer_`.
  size_t searched_ = 0;  // Bytes in `buffer_` that were searched for the end of the header.
  RequestHead head_;
  RequestBody body_;
  size_t received_ = 0;  // Bytes of the body that were received.
  size_t reserved_ = 0;  // Bytes of the body for which there is memory.
  bool done_ = false;
};

// An output in an answer.
struct AnsweredOutput {
  std::string_view name;
  DataType type;
  std::span<const int64_t> shape;
  size_t size;
  bool placed;  // True if the bytes are in shared memory.
};

// Appends the head of a successful answer: HTTP header and JSON. The bytes of the outputs that are not placed follow.
void append_answer(std::string& out, std::span<const AnsweredOutput> outputs);

// Appends an answer with an error. If `closes` is true, it announces that the connection is closed.
void append_error(std::string& out, int status, std::string_view message, bool closes);

// Appends a successful answer without a body.
void append_empty_answer(std::string& out);

}  // namespace jigsaw
