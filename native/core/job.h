// A request at one task, divided into items, which are sent to workers in batches of any size and answered in any
// order.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/base.h"
#include "core/host.h"
#include "core/spec.h"

namespace jigsaw {

class Flow;
class Server;
class Task;

// The tensors of an answer do not match the declaration of the task, or do not fit together. `blame` says which side is
// at fault: the model or the request.
struct AnswerError : std::runtime_error {
  AnswerError(Blame blame, const std::string& message) : std::runtime_error(message), blame(blame) {}
  Blame blame;
};

// An input of a job: a sequence of entries, each of which serves `repeat` consecutive items. Does not own its data.
struct JobInput {
  const char* data = nullptr;
  int64_t repeat = 1;
  size_t entry_size = 0;        // Bytes of an entry, if all entries have the same size.
  std::vector<size_t> offsets;  // Offsets of the entries of a BYTES input, and the end.
  Shape shape;                  // Shape of one entry.

  // Returns the bytes of the entry that serves an item.
  std::string_view entry(int64_t item) const;

  // Returns the bytes of the entries of items [start, stop). Requires `repeat` to be 1.
  std::string_view range(int64_t start, int64_t stop) const;
};

// The values of an output for some items of a job. They are part of the answer to one call, which several chunks share.
struct Chunk {
  int64_t start = 0, stop = 0;  // Range of items of the job: [start, stop).
  Shape shape;                  // Shape of one item.
  std::shared_ptr<char[]> owner;
  const char* data = nullptr;
  size_t size = 0;
};

// An output of a job, as far as its answers have arrived.
struct JobOutput {
  bool allocated = false;  // True if the output has a fixed size and the memory for its values is allocated.
  Shape shape;
  char* data = nullptr;  // Values of all items, if they have a fixed size.
  size_t item_size = 0;
  std::shared_ptr<char[]> owner;
  std::vector<Chunk> chunks;  // Values of the items, if they vary in size.
};

// A call of a traced request, for the trace.
struct TracedCall {
  std::string worker, model, variant;
  int64_t items, batch;
  Time sent, ended;
  const char* outcome;
  bool again;
  uint64_t number;
};

// A request at one task. Owned by its flow; guarded by the engine's lock, except for the functions that say otherwise.
struct Job {
  Flow* flow = nullptr;
  Task* task = nullptr;
  size_t task_index = 0;
  Time arrival = 0;      // Time of arrival at the task.
  bool started = false;  // True if another task has already served the request.
  // Deadline by which late jobs are recognised. Equals `deadline` for a started job; for a new one it also leaves the
  // time that jobs lately needed at the followers, waiting included.
  Time admission_deadline = kNever;
  Time deadline = kNever;  // Latest time of the answer at this task, which leaves its followers the time they need.
  Time order = kNever;     // Sort key of the queue.
  Time window = 0;         // Time from the arrival to the initial `order`.
  int priority = 0;        // Jobs with a larger priority are first.
  int64_t items = 0;       // Number of items.
  int64_t answered = 0;    // Number of answered items.
  Shape leading;           // Leading dimensions of the outputs. Their product is the number of items.
  std::vector<JobInput> inputs;
  std::vector<JobOutput> outputs;
  Shape group;      // Shapes of the items: jobs with equal groups may share a batch.
  size_t size = 0;  // Bytes of the inputs.
  Time first_sent = 0, last_received = 0;
  bool traced = false;
  std::vector<TracedCall> calls;
  std::unique_ptr<Failure> failure;  // Reason why the answers could not be joined; nullptr if they could.

  // Takes the inputs of a task from the tensors of its request. `holds` is true if the task's condition holds.
  // Returns a failure if the inputs do not fit together, else nullptr.
  std::unique_ptr<Failure> take_inputs(const TaskSpec& spec, const std::vector<Value>& values, bool holds);

  // Returns memory for the values of a fixed-size output from item `start` on. `shape` is that of one item. Called
  // by the event loop's thread only, without the lock. Throws AnswerError if the output is too large or there is no
  // memory.
  char* output_memory(const TaskSpec& spec, size_t output, const Shape& shape, int64_t start);

  // Adds a part of a call's answer to an output whose size varies. Called by the event loop's thread only.
  void add_chunk(size_t output, Chunk chunk) { outputs[output].chunks.push_back(std::move(chunk)); }

  // Returns the number of bytes that `join_outputs` may have to copy.
  size_t chunk_bytes() const;

  // Joins the answers to tensors of the request, counts included. May be called without the lock. Returns a failure if
  // items do not fit together, else nullptr.
  std::unique_ptr<Failure> join_outputs(const TaskSpec& spec, std::vector<Value>& values);

 private:
  // Joins the answers of one output.
  std::unique_ptr<Failure> join_output(const TaskSpec& spec, size_t output, Value& value);

  // Returns the number of rows that each item yielded.
  Value row_counts(const CountSpec& count);
};

// A server that failed on a piece. It may have ended since.
struct FailedServer {
  const Server* server;  // For comparison only, never dereferenced.
  std::string name;
  std::string node;  // Name of its host.

  bool operator==(const FailedServer&) const = default;
};

// Items [start, stop) of a job, in the queue or in a call. Each piece holds a reference to the flow of its job, which
// keeps the request alive.
struct Piece {
  Piece(Job* job, int64_t start, int64_t stop) : job(job), start(start), stop(stop) {}

  Job* job = nullptr;
  int64_t start = 0, stop = 0;
  int tries = 0;                       // Number of failed calls in which a worker may have executed it.
  bool again = false;                  // True if the items were sent before.
  bool alone = false;                  // True if it must not share a batch, because a batch with it failed.
  std::vector<FailedServer> failures;  // Servers that failed on it.

  int64_t size() const { return stop - start; }
};

}  // namespace jigsaw
