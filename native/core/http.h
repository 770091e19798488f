// Triton's HTTP inference protocol with its binary tensor extension: requests to bytes, and bytes to answers.
#pragma once

#include <sys/uio.h>

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "core/base.h"

namespace jigsaw {

// A part of a region of shared memory.
struct RegionSpan {
  size_t offset = 0;
  size_t size = 0;
};

// An input of a call: its bytes follow the head, or lie in shared memory.
struct CallInput {
  std::string_view name;
  DataType type;
  std::span<const int64_t> shape;  // Batch dimension included.
  size_t size;
  const RegionSpan* placed = nullptr;
};

struct CallOutput {
  std::string_view name;
  const RegionSpan* placed = nullptr;
};

// The head of an inference request: HTTP header and JSON. The inputs' bytes follow in their order.
void append_inference(std::string& out, std::string_view model, std::string_view id, std::string_view region,
                      std::span<const CallInput> inputs, std::span<const CallOutput> outputs);

// Requests to map a region of shared memory, and to unmap it. `secret` is what the server wants for that.
std::string register_request(std::string_view region, size_t size, std::string_view secret);
std::string unregister_request(std::string_view region, std::string_view secret);

struct AnswerHead {
  int status = 0;
  size_t body = 0;  // Bytes.
  size_t json = 0;  // The part of the body that is JSON.
};

// Reads an HTTP header, its last empty line excluded. Throws FormatError.
AnswerHead parse_answer_head(std::string_view text);

struct AnswerOutput {
  std::string name;
  DataType type = DataType::kInvalid;
  Shape shape;
  size_t size = 0;      // Bytes that follow the JSON.
  bool placed = false;  // The values lie in shared memory, where the request asked for them.
};

// Reads the JSON of a good answer. Throws FormatError.
std::vector<AnswerOutput> parse_answer(std::string_view text);

// The reason in the JSON of a bad answer.
std::string answer_error(std::string_view text, int status);

// Reads one answer from bytes that come in any pieces, without copying tensors.
class AnswerReader {
 public:
  // Told the outputs of a good answer once they are known. Appends for each output that has bytes the places, in order,
  // that take exactly these bytes. May throw FormatError.
  using Place = std::function<void(const std::vector<AnswerOutput>&, std::vector<iovec>&)>;

  // Begins a new answer; that to an inference, or one whose body is of no interest where it is good.
  void begin(bool inference = true);

  // Where to write what comes next; never empty while `done()` is false.
  std::span<iovec> buffers();

  // `count` bytes were written there. Throws FormatError where they are no answer; the reader is of no use then.
  void received(size_t count, const Place& place);

  bool done() const { return state_ == State::kDone; }
  int status() const { return head_.status; }
  size_t body() const { return head_.body; }

  // The JSON of an answer that is not good.
  std::string_view text() const { return {buffer_.data() + body_start_, head_.json}; }

 private:
  enum class State : uint8_t { kHead, kJson, kTensors, kDone };

  void read_head();
  void read_json(const Place& place);
  void advance(size_t count);

  State state_ = State::kHead;
  bool inference_ = true;
  AnswerHead head_;
  std::vector<char> buffer_;
  size_t filled_ = 0;
  size_t searched_ = 0;
  size_t body_start_ = 0;  // Of the body.
  std::vector<iovec> places_;
  size_t place_ = 0;
  iovec single_{};
};

}  // namespace jigsaw
