// Holds answers back while the server's HTTP front has no room for more.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <vector>

struct TRITONBACKEND_Response;
struct TRITONSERVER_Error;

namespace jigsaw {

// Triton's HTTP front hands each answer to its connection's thread as 17 bytes through a socket pair, and loses what
// finds the pair full. These pairs are the process's only unnamed Unix stream sockets that are connected to one
// another; how full they are can be read. An answer that finds one over half full waits until it is not.
class AnswerGate {
 public:
  static AnswerGate& get();

  // Looks for the pairs anew: the fronts of the server may have been started since.
  void find_pairs();

  // Sends a response, now or soon, with an error or none; takes both over.
  void send(TRITONBACKEND_Response* response, TRITONSERVER_Error* error);

 private:
  struct Answer {
    TRITONBACKEND_Response* response;
    TRITONSERVER_Error* error;
  };

  AnswerGate() = default;
  bool admit();
  void run();

  std::atomic<int> budget_{0};  // Answers that surely find room, as if none were read meanwhile.
  std::atomic<bool> holding_{false};
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<int> sockets_;
  int buffer_bytes_ = 0;
  std::deque<Answer> held_;
  bool started_ = false;
};

}  // namespace jigsaw
