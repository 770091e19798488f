// A keep-alive connection to a server, with at most one call under way, and the shared memory that goes with it.
#pragma once

#include <sys/uio.h>

#include <memory>
#include <string>
#include <vector>

#include "core/http.h"
#include "core/job.h"
#include "core/region.h"
#include "core/worker.h"

namespace jigsaw {

class Task;
struct RouteEntry;

// A batch on its way to a worker.
struct Call {
  uint64_t number = 0;  // Of the call, in this process; also its token.
  Task* task = nullptr;
  std::shared_ptr<Worker> worker;
  size_t variant = 0;  // Index among the task's metrics.
  std::string variant_name;
  bool again = false;  // Some of it was sent before.
  int64_t tokens = 0;
  bool pads = false;  // Whether the model fills up rows.
  std::vector<Piece> pieces;
  int64_t items = 0;
  Time sent = 0;
  Time deadline = kNever;
  size_t sent_bytes = 0;
  std::string ids;               // Of traced requests, for the worker's model.
  bool regions_allowed = false;  // Whether large tensors may go through shared memory.
};

// The connection failed. `executed` is false where the worker surely ran nothing of the call.
struct ConnectionLost : std::runtime_error {
  ConnectionLost(const std::string& reason, bool executed) : std::runtime_error(reason), executed(executed) {}
  bool executed;
};

class Connection {
 public:
  enum class State : uint8_t {
    kIdle,         // In its server's pool.
    kSending,      // A thread sends a call; only that thread touches the connection.
    kWaiting,      // The loop waits for its socket.
    kRegistering,  // The loop waits for the answer to a registration of shared memory.
  };

  explicit Connection(Server& server) : server_(server) {}
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  Server& server() { return server_; }

  // Guarded by the engine's lock, as is `aborted`.
  State state = State::kIdle;
  bool aborted = false;  // The call was given up while it was being sent.

  Call call;

  // Sends the call, as far as the socket takes it; the rest goes on with `resume`. Throws ConnectionLost.
  void send();

  // Goes on sending or receiving. Returns true once the answer is complete.
  // Throws ConnectionLost or FormatError (what came is no answer).
  bool resume();

  int socket() const { return socket_; }
  bool sending() const { return next_send_buffer_ < send_buffers_.size(); }
  bool registered_with_loop = false;

  int status() const { return reader_.status(); }
  size_t received_bytes() const { return reader_.body(); }
  std::string error() const { return answer_error(reader_.text(), reader_.status()); }

  // Whether the tokens of the answer are those of the call; to be asked once it is complete.
  bool tokens_match() const;

  // Hands the parts of outputs that vary in size to the jobs. Throws AnswerError, with nothing handed over, where the
  // answer's tensors are not the task's.
  void deliver();

  // Outputs of a python step that answers the whole request: name of the graph's output and value.
  bool answered_early() const;
  std::vector<std::pair<std::string, Value>> early_outputs() const;

  // Bytes of large tensors of the call that found no room in shared memory; 0 where none did.
  size_t region_wanted() const { return region_wanted_; }

  // Begins to register a region in place of the one before, which it returns. Throws ConnectionLost.
  Region register_region(Region region, const std::string& secret);

  // Goes on with it; true once the server has answered. Throws ConnectionLost or FormatError.
  bool resume_registration();

  bool has_region(size_t size) const { return region_ && region_.size() >= size; }

  // Has the server unmap the region, which it returns, and closes the connection.
  Region retire(const std::string& secret);

  // Closes the socket. The region goes, too: the server may still write there, but nobody reads it.
  void close();

  // Gives the region away, to be freed where that may take long.
  Region take_region() { return std::move(region_); }

 private:
  struct Received {
    std::string name;
    Shape shape;  // Of one item.
    std::shared_ptr<char[]> data;
    size_t size = 0;
    size_t output = 0;            // Index among the task's outputs.
    std::vector<size_t> offsets;  // Offsets of the elements of a BYTES output.
  };

  void check_outputs();
  void deliver_rows(const Received& received);

  void open();
  void build_request();
  bool flush();
  void place_outputs(const std::vector<AnswerOutput>& outputs, std::vector<iovec>& places);
  void place_output(const AnswerOutput& output, size_t index, const char* from, std::vector<iovec>& places);
  void receive_extra(const AnswerOutput& output, std::vector<iovec>& places);

  Server& server_;
  int socket_ = -1;
  std::string head_;
  std::vector<iovec> send_buffers_;
  size_t next_send_buffer_ = 0;
  AnswerReader reader_;
  std::vector<Received> received_;
  std::vector<std::vector<int64_t>> tokens_;
  std::vector<std::vector<int64_t>> rows_;  // By the task's outputs: rows of each item, where they are filled up.
  std::vector<std::pair<std::string, Value>> extra_outputs_;
  std::string missing_output_;               // An output that the answer does not have.
  std::optional<AnswerError> output_error_;  // Another error in the answer's outputs.
  uint8_t answered_flag_ = 0;
  Region region_;
  std::vector<RegionSpan> placed_outputs_;  // By the task's outputs; size 0 where one is not placed.
  size_t region_wanted_ = 0;
};

}  // namespace jigsaw
