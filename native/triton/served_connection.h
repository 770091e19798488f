// A connection of a gateway to the listener.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "core/buffers.h"
#include "core/region.h"
#include "core/served_call.h"
#include "triton/file.h"

namespace jigsaw {

class InferenceCall;
class Listener;

// A connection of a gateway. It has one call at a time. The thread of the listener reads; the thread that has an answer
// writes it.
class ServedConnection : public std::enable_shared_from_this<ServedConnection> {
 public:
  ServedConnection(Listener& listener, int socket) : listener_(listener) { socket_.open(socket); }
  ~ServedConnection();
  ServedConnection(const ServedConnection&) = delete;
  ServedConnection& operator=(const ServedConnection&) = delete;

  // Handles events of the socket. Returns false if the connection has ended.
  bool on_event();

  // Writes the answer of a call, or as much as the socket accepts. Returns true if `call` is needed until the rest is
  // written; the connection then drops it. `call` is nullptr for an answer that the caller keeps.
  bool answer(InferenceCall* call, std::vector<iovec> pieces);

  // Ends the connection as soon as its call is answered. Returns true if that is now.
  bool end();

  // Ends the connection at once, with or without an answer.
  void abandon();

  std::mutex mutex;

 private:
  enum class State : uint8_t { kReading, kCalling, kWriting, kEnded };

  // Reads until the request is complete, no more bytes are there, or it is another connection's turn. Returns false if
  // the connection has ended.
  bool read();

  // Answers a request that cannot be read, after which the connection has ended. Returns false.
  bool reject(int status, const char* message);

  // Carries out the request that was read. Any thread may answer it.
  void handle();
  void infer(const std::string& model);
  void refuse(int status, const std::string& message, bool closes);
  void send_text(std::string text);

  // Waits for the next request, or ends the connection if it is to end. Requires the mutex.
  void read_next();

  // Ends the use of a call whose answer was written, which may free much memory.
  void drop_later(InferenceCall& call);

  // Chooses the events of the socket that the listener's thread waits for.
  void listen_for(uint32_t events);

  Listener& listener_;
  File socket_;
  State state_ = State::kReading;
  bool closes_ = false;  // True if the connection ends after the answer.
  RequestReader reader_;
  std::shared_ptr<MappedRegion> region_;
  InferenceCall* call_ = nullptr;  // Call that is not answered yet, or whose answer is being written.
  std::string text_;               // Answer that belongs to no call.
  Buffers pieces_;                 // Rest of the answer that is being written.
};

}  // namespace jigsaw
