// The listener of a worker: takes the calls of gateways from a Unix socket to the server that this library runs in.
//
// Triton's HTTP endpoint passes each answer to the thread of its connection before it is written. The listener writes
// an answer in the thread that has computed it, which saves that change of threads.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "core/worker.h"
#include "triton/abi.h"
#include "triton/file.h"

namespace jigsaw {

class ServedConnection;

// Accepts connections, and reads their requests in a thread of its own. Answers are written by the threads of the
// models, or by the listener's if a client reads slowly.
class Listener {
 public:
  // Listens at `path`, where no file may be. `secret` is needed to register shared memory. Throws std::runtime_error.
  Listener(TRITONSERVER_Server* server, std::string path, std::string secret);

  // Stops listening, and waits for the calls in flight.
  ~Listener();

  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  TRITONSERVER_Server* server() const { return server_; }
  TRITONSERVER_ResponseAllocator* allocator() const { return allocator_; }
  const std::string& secret() const { return secret_; }

  // Count the calls in flight, for which the destructor waits. Any thread may call them.
  void call_begins();
  void call_ended();

  // Makes the loop wait for events of a file descriptor. `operation` is that of epoll_ctl. Returns false if the kernel
  // has no memory for that. Any thread may call it.
  bool wait_for(int file, uint32_t events, int operation);

  // Ends one use of an object; nullptr does nothing. The last use ends in a thread of its own, because it takes the
  // kernel a tenth of a second to free 512 MiB. Any thread may call it.
  void discard(std::shared_ptr<void> object);

 private:
  // Begins to listen at a path.
  void listen(const std::string& path);

  // Bodies of the threads.
  void loop();
  void free_objects();

  // Makes the socket file again if it has been removed, with the identity of the first one. Another process's file
  // stays.
  void restore_file();

  // Accepts the connections that are there. If too many files are open, or no memory is left, it goes on after a pause.
  void accept_all();

  // Returns the milliseconds for which the loop waits for events.
  int patience_ms() const;

  // Accepts no more connections, and ends those without a call. Removes the socket file, unless it is that of another
  // process by now.
  void stop_listening();

  TRITONSERVER_Server* server_;
  const std::string path_, secret_;
  TRITONSERVER_ResponseAllocator* allocator_ = nullptr;
  File socket_, epoll_;
  ServerIdentity identity_ = kNoServer;  // Identity of this process as a server at `path_`.
  File event_;                           // Event file descriptor that ends the loop.
  Time end_ = kNever;                    // End of the loop, once it is known.
  Time accept_at_ = kNever;              // End of a pause in which no connections are accepted.
  Time look_at_ = 0;                     // Time of the next look at the socket file.
  std::unordered_map<int, std::shared_ptr<ServedConnection>> connections_;
  std::mutex mutex_;
  std::condition_variable idle_;
  size_t calls_ = 0;  // Calls in flight, until their request is released. Guarded by the mutex.
  std::vector<std::shared_ptr<void>> discarded_;  // Objects whose use ends. Guarded by the mutex.
  bool ended_ = false;                            // True if the freeing thread is to end. Guarded by the mutex.
  std::condition_variable free_;
  std::thread thread_, freeing_thread_;
};

}  // namespace jigsaw
