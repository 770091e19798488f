// Client side of Triton's HTTP inference protocol with its binary tensor extension: builds requests and reads answers.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "core/base.h"
#include "core/buffers.h"
#include "core/region.h"
#include "core/tensor_json.h"
#include "core/trace_context.h"

namespace jigsaw {

// Limits of requests and answers.
inline constexpr size_t kMaxHeadBytes = 64 * 1024;
inline constexpr size_t kMaxJsonBytes = 16 * 1024 * 1024;
inline constexpr size_t kMaxBodyBytes = size_t{1} << 40;

// Returns true if `name` is the lower-case name `lower` in any case.
bool equals_ignoring_case(std::string_view name, std::string_view lower);

// Parses the value of a header that is a length. Throws FormatError.
size_t parse_length(std::string_view value);

// Calls `use` with the name and the trimmed value of each line of an HTTP header but the first. Throws FormatError.
void for_each_header(std::string_view text, const std::function<void(std::string_view, std::string_view)>& use);

// An input of a call. Its bytes follow the head, or are in shared memory if `placed` is set.
struct CallInput {
  std::string_view name;
  DataType type;
  std::span<const int64_t> shape;  // Shape, including the batch dimension.
  size_t size;
  const RegionSpan* placed = nullptr;
};

// A requested output of a call. Its bytes are returned in shared memory if `placed` is set.
struct CallOutput {
  std::string_view name;
  const RegionSpan* placed = nullptr;
};

// Appends the head of an inference request: HTTP header and JSON. The bytes of the inputs follow in their order.
// `trace` has the headers of its trace.
void append_inference(std::string& out, std::string_view model, std::string_view id, const TraceHeaders& trace,
                      std::string_view region, std::span<const CallInput> inputs, std::span<const CallOutput> outputs);

// Return the requests to map a region of shared memory, and to unmap it. The server requires `secret` for them.
std::string register_request(std::string_view region, size_t size, std::string_view secret);
std::string unregister_request(std::string_view region, std::string_view secret);

// Header of an answer.
struct AnswerHead {
  int status = 0;
  size_t body = 0;      // Bytes of the body.
  size_t json = 0;      // Bytes of JSON at the start of the body.
  bool closes = false;  // True if the server closes the connection after the answer.
};

// Parses an HTTP header without the empty line at its end. Throws FormatError.
AnswerHead parse_answer_head(std::string_view text);

// Description of an output in an answer.
struct AnswerOutput : TensorHead {
  size_t size = 0;      // Bytes of the output after the JSON.
  bool placed = false;  // True if the values are in shared memory, as requested.
};

// Parses the JSON of a successful answer. Throws FormatError.
std::vector<AnswerOutput> parse_answer(std::string_view text);

// Returns the message in the JSON of an error answer.
std::string answer_error(std::string_view text, int status);

// Reads one answer at a time from pieces of any size, without copying tensors. Owned by a connection; not thread-safe.
class AnswerReader {
 public:
  // Function that receives the descriptions of the outputs of a successful answer. For each output with bytes it
  // appends memory for exactly these bytes, in order. May throw FormatError.
  using Place = std::function<void(const std::vector<AnswerOutput>&, std::vector<iovec>&)>;

  // Starts a new answer. If `inference` is false, the body of a successful answer is ignored.
  void begin(bool inference = true);

  // Returns the memory for the next bytes. It is never empty while `done()` is false.
  std::span<iovec> buffers();

  // Processes `count` bytes that were written to `buffers()`. Throws FormatError if they are not a valid answer; then
  // the reader must not be used until `begin`.
  void received(size_t count, const Place& place);

  bool done() const { return state_ == State::kDone; }
  int status() const { return head_.status; }
  size_t body() const { return head_.body; }
  bool closes() const { return head_.closes; }

  // Returns the JSON of an error answer.
  std::string_view text() const { return {buffer_.data() + body_start_, head_.json}; }

 private:
  enum class State : uint8_t { kHead, kJson, kTensors, kDone };

  // Parses the header once it is complete.
  void read_head();

  // Parses the JSON, and moves the tensor bytes behind it to their memory.
  void read_json(const Place& place);

  // Skips `count` bytes of the tensors.
  void advance(size_t count);

  State state_ = State::kHead;
  bool inference_ = true;
  AnswerHead head_;
  std::vector<char> buffer_;
  size_t filled_ = 0;      // Bytes in `buffer_` that were received.
  size_t searched_ = 0;    // Bytes in `buffer_` that were searched for the end of the header.
  size_t body_start_ = 0;  // Offset of the body in `buffer_`.
  Buffers places_;         // Memory for the tensors.
  iovec single_{};         // The unused part of `buffer_`.
};

}  // namespace jigsaw
