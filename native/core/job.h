// A request at one task, as items that travel to workers in batches of any sizes and whose answers come in any order.
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

// An answer whose tensors are not what the task declares (the model's fault), or do not fit together (the request's).
struct AnswerError : std::runtime_error {
  AnswerError(Blame blame, const std::string& message) : std::runtime_error(message), blame(blame) {}
  Blame blame;
};

// An input of a job as a line of entries; each entry serves `repeat` items in a row.
struct JobInput {
  const char* data = nullptr;
  int64_t repeat = 1;
  size_t entry_size = 0;        // Bytes, where entries have one size.
  std::vector<size_t> offsets;  // Of entries of BYTES, and the end.
  Shape shape;                  // Of one entry.

  // Bytes of the entry that serves an item.
  std::string_view entry(int64_t item) const;

  // Bytes of the entries of items [start, stop), where each serves one item.
  std::string_view range(int64_t start, int64_t stop) const;
};

// An output of some items, in memory of its own: the answer of one call, of which each job has a part.
struct Chunk {
  int64_t start = 0, stop = 0;  // Items of the job.
  Shape shape;                  // Of one item.
  std::shared_ptr<char[]> owner;
  const char* data = nullptr;
  size_t size = 0;
};

// An output of a job while its answers come in.
struct JobOutput {
  bool known = false;  // Whether the shape of an item is known.
  Shape shape;
  char* data = nullptr;  // Of all items, where they have one size.
  size_t item_size = 0;
  std::shared_ptr<char[]> owner;
  std::vector<Chunk> chunks;  // Where they vary.
};

struct TracedCall {
  std::string worker, model, variant;
  int64_t items, batch;
  Time sent, ended;
  const char* outcome;
  bool again;
  uint64_t number;
};

struct Job {
  Flow* flow = nullptr;
  Task* task = nullptr;
  size_t task_index = 0;
  Time arrival = 0;      // At the task.
  bool started = false;  // Other tasks have worked on the request before.
  Time admission_deadline =
      kNever;  // When it must have left the queue, by what the tasks that follow lately took; see `Task::late`.
  Time deadline = kNever;  // Of its answer at this task; what follows still needs time of its own.
  Time order = kNever;     // What the queue is ordered by.
  Time window = 0;         // From its arrival to its first order.
  int priority = 0;        // Larger goes first.
  int64_t items = 0;
  int64_t answered = 0;
  Shape leading;  // Leading dimensions of its outputs; their product is the number of items.
  std::vector<JobInput> inputs;
  std::vector<JobOutput> outputs;
  Shape group;      // Jobs of equal groups may share a batch.
  size_t size = 0;  // Bytes of its inputs.
  Time first_sent = 0, last_received = 0;
  bool traced = false;
  std::vector<TracedCall> calls;
  std::unique_ptr<Failure> failure;  // Why its answers could not be joined.

  // Takes the inputs of a task from the tensors of its request.
  // Returns a failure where they do not fit together. `holds` says whether the task's condition does.
  std::unique_ptr<Failure> take_inputs(const TaskSpec& spec, const std::vector<Value>& values, bool holds);

  // Memory for an output of the items from `start` on, of `shape` each. Loop thread only.
  // Throws AnswerError where other items have another shape.
  char* output_memory(const TaskSpec& spec, size_t output, const Shape& shape, int64_t start);

  // Keeps a part of a call's answer for an output whose size varies.
  void add_chunk(size_t output, Chunk chunk) { outputs[output].chunks.push_back(std::move(chunk)); }

  // Bytes of answers that `finish` may copy.
  size_t chunk_bytes() const;

  // Turns what came in into tensors of the request, counts included. Returns a failure where items do not fit together.
  std::unique_ptr<Failure> join_outputs(const TaskSpec& spec, std::vector<Value>& values);
};

// Items [start, stop) of a job, on their way through the queue and the workers. A request lives as long as a piece of
// it.
struct Piece {
  Piece(Job* job, int64_t start, int64_t stop) : job(job), start(start), stop(stop) {}

  Job* job = nullptr;
  int64_t start = 0, stop = 0;
  int tries = 0;                                 // How often a worker may have executed it without answering.
  bool again = false;                            // Sent before, alone or as part of another.
  bool alone = false;                            // Shares no batch: a batch that it was in failed.
  std::vector<const Server*> failed_servers;     // Servers that failed on it, compared and never followed.
  std::vector<std::string> failed_server_names;  // Their names.

  int64_t size() const { return stop - start; }
};

}  // namespace jigsaw
