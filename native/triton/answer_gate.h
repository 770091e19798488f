// Flow control for responses: works around a limit of Triton's HTTP frontend.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <vector>

struct TRITONBACKEND_Response;
struct TRITONSERVER_Error;

namespace jigsaw {

// Delays responses while Triton's HTTP frontend cannot accept more. The frontend passes each response to the thread of
// its connection as a message of 17 bytes through a socket pair, and loses messages that do not fit into the pair's
// buffer. These pairs are the only unnamed Unix stream sockets of the process that are connected to each other, and
// their fill level can be read. While one is more than half full, responses wait in a queue.
//
// A singleton that is never destroyed. Any thread may call it.
class AnswerGate {
 public:
  // Returns the gate of this process.
  static AnswerGate& get();

  // Searches for the socket pairs again. Called at each load of a model, because the frontends may have started since.
  void find_pairs();

  // Sends a response, immediately or later. Takes ownership of the response and of the error, which may be nullptr.
  void send(TRITONBACKEND_Response* response, TRITONSERVER_Error* error);

 private:
  struct Answer {
    TRITONBACKEND_Response* response;
    TRITONSERVER_Error* error;
  };

  AnswerGate() = default;
  // Returns true if a response may be sent now. Requires the mutex.
  bool admit();
  // Sends held responses; the body of the gate's thread.
  void run();

  std::atomic<int> budget_{0};        // Number of responses that certainly fit, even if the frontend reads none.
  std::atomic<bool> holding_{false};  // True while responses wait.
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<int> sockets_;  // Both ends of all pairs.
  int buffer_bytes_ = 0;      // Smallest send buffer of the sockets.
  std::deque<Answer> held_;   // Responses that wait.
  bool started_ = false;      // True if the thread that sends held responses runs.
};

}  // namespace jigsaw
