// A keep-alive connection to a server, its call, and its region of shared memory.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/buffers.h"
#include "core/http.h"
#include "core/job.h"
#include "core/metrics.h"
#include "core/region.h"
#include "core/worker.h"

namespace jigsaw {

class Task;

// The call of a batch to a worker.
struct Call {
  uint64_t number = 0;  // Number of the call in this process; also its token.
  Task* task = nullptr;
  std::shared_ptr<Worker> worker;
  size_t variant = 0;                             // Index of the variant in the task's metrics.
  std::shared_ptr<const ServiceMetrics> service;  // Service times of the model at the worker.
  std::string variant_name;
  bool again = false;  // True if some of its items were sent before.
  int64_t tokens = 0;  // Number of outputs that carry the token.
  bool pads = false;   // True if the model pads rows.
  std::vector<Piece> pieces;
  int64_t items = 0;
  Time sent = 0;
  // The engine's lock guards `early` to `expected_end`: the end of another call changes them.
  bool early = false;  // True if the worker had no free slot for it when it was sent, and is not known to have one yet.
  Time started = 0;    // Running time at which it was sent or, if it was early, got a slot.
  Time timeout = 0;    // Time from `started` after which it counts as hanging.
  Time expected_end = kNever;  // Expected time of the answer, until it or a failure has arrived.
  size_t sent_bytes = 0;
  std::string ids;               // Ids of the traced requests, separated by commas.
  TraceHeaders trace;            // Context of the first sampled request.
  bool regions_allowed = false;  // True if large tensors may use shared memory.
};

// The connection failed. `executed` is false if the worker certainly did not execute the call.
struct ConnectionLost : std::runtime_error {
  ConnectionLost(const std::string& reason, bool executed) : std::runtime_error(reason), executed(executed) {}
  bool executed;
};

// Owned by its server. The engine's lock guards `state`, `aborted` and the membership in the server's pool. Otherwise
// only one thread uses a connection at a time: the sender in state kSending, the event loop in kWaiting and
// kRegistering.
class Connection {
 public:
  enum class State : uint8_t {
    kIdle,         // In the pool of its server.
    kSending,      // A thread is sending a call.
    kWaiting,      // The event loop waits for the socket.
    kRegistering,  // The event loop waits for the answer to a registration of shared memory.
  };

  explicit Connection(Server& server) : server_(server) {}
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  Server& server() { return server_; }

  State state = State::kIdle;
  bool aborted = false;  // True if the call was aborted while it was being sent.

  Call call;

  // Sends as much of the call as the socket accepts; `resume` sends the rest. Throws ConnectionLost.
  void send();

  // Continues to send or receive. Returns true when the answer is complete.
  // Throws ConnectionLost, or FormatError if the data is not a valid answer.
  bool resume();

  int socket() const { return socket_; }
  bool sending() const { return !send_buffers_.empty(); }
  bool registered_with_loop = false;

  int status() const { return reader_.status(); }
  size_t received_bytes() const { return reader_.body(); }
  std::string error() const { return answer_error(reader_.text(), reader_.status()); }

  // Returns true if the tokens in the complete answer are those of the call.
  bool tokens_match() const;

  // Passes the outputs that vary in size to the jobs. Throws AnswerError, before any output is passed on, if the
  // tensors of the answer do not match the task.
  void deliver();

  // Returns true if a Python step answered the whole request.
  bool answered_early() const;

  // Returns the answer of the Python step: (output of the graph, value) pairs.
  std::vector<std::pair<std::string, Value>> early_outputs() const;

  // Returns the size of the region that the call would have needed; 0 if its region was large enough or none was
  // needed.
  size_t region_wanted() const { return region_wanted_; }

  // Starts to register a region and returns the previous one. Throws ConnectionLost.
  Region register_region(Region region, const std::string& secret);

  // Continues the registration. Returns true when the server has answered. Throws ConnectionLost or FormatError.
  bool resume_registration();

  bool has_region(size_t size) const { return region_ && region_.size() >= size; }

  // Asks the server to unmap the region, closes the connection, and returns the region.
  Region retire(const std::string& secret);

  // Closes the socket and frees the region, in which the server may still write.
  void close();

  // Returns the region, so that the caller can free it, which may take long.
  Region take_region() { return std::move(region_); }

 private:
  // An output of varying size, until `deliver` passes it to the jobs.
  struct Received {
    std::string name;
    Shape shape;  // Shape of one item.
    std::shared_ptr<char[]> data;
    size_t size = 0;
    size_t output = 0;            // Index of the output in the task.
    std::vector<size_t> offsets;  // Offsets of the elements of a BYTES output.
  };

  // Throws the error of an answer whose outputs do not match the task.
  void check_outputs();

  // Passes an output with padded rows to the jobs.
  void deliver_rows(const Received& received);

  // Connects to the server.
  void open();

  // Chooses the large tensors of the call that use shared memory: all of them, or none if the region is too small.
  // Returns the part of the region for each input; size 0 for none.
  std::vector<RegionSpan> place_tensors(const std::vector<size_t>& input_sizes);

  // Builds the request of the call in `head_`, `send_buffers_` and the region.
  void build_request();

  // Sends as much as the socket accepts.
  void flush();

  // Receives what has arrived of an answer. Returns true when it is complete. Throws FormatError, or ConnectionLost
  // with the value of `executed` unless the call was certainly not executed.
  bool receive(const AnswerReader::Place& place, bool executed);

  // Chooses the memory for the outputs of an answer, in the order of the answer.
  void place_outputs(const std::vector<AnswerOutput>& outputs, std::vector<iovec>& places);
  void place_output(const AnswerOutput& output, size_t index, const char* from, std::vector<iovec>& places);

  // Returns the place for the values of an output with tokens or numbers of rows; nullptr for other outputs.
  std::vector<int64_t>* numbers_of(std::string_view name);

  // Receives an output that does not belong to the task's outputs, or that is invalid.
  void receive_extra(const AnswerOutput& output, std::vector<iovec>& places);

  Server& server_;
  int socket_ = -1;
  std::string head_;
  Buffers send_buffers_;
  AnswerReader reader_;
  std::vector<Received> received_;
  std::vector<std::vector<int64_t>> tokens_;  // Tokens of each item, by number of the token output.
  // Number of rows of each item in each output of the task, if rows are padded.
  std::vector<std::vector<int64_t>> rows_;
  std::vector<std::pair<std::string, Value>> extra_outputs_;
  std::string missing_output_;               // Name of an output that the answer lacks.
  std::optional<AnswerError> output_error_;  // First other error in the outputs of the answer.
  uint8_t answered_flag_ = 0;
  Region region_;
  std::vector<RegionSpan> placed_outputs_;  // Part of the region for each output of the task; size 0 for none.
  size_t region_wanted_ = 0;
};

}  // namespace jigsaw
