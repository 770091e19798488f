#include "core/connection.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "core/flow.h"
#include "core/front.h"
#include "core/task.h"

namespace jigsaw {
namespace {

// Requests with fewer bytes than this are copied into one buffer and sent by one system call.
constexpr size_t kMaxCopiedBytes = 64 * 1024;

// Minimum bytes of a tensor that uses shared memory.
constexpr size_t kMinSharedBytes = 128 * 1024;

// Passes the bytes of an input of a call, in the order of the batch, to `use`.
template <typename Use>
void for_each_part(const Call& call, size_t index, Use use) {
  for (const Piece& piece : call.pieces) {
    const JobInput& input = piece.job->inputs[index];
    if (input.repeat == 1)
      use(input.range(piece.start, piece.stop));
    else
      for (int64_t item = piece.start; item < piece.stop; item++) use(input.entry(item));
  }
}

// Returns the names of the outputs that a call requests beside those of its task.
std::vector<std::string> further_outputs(const Call& call) {
  const TaskSpec& spec = call.task->spec();
  std::vector<std::string> names;
  if (call.tokens == 1)
    names.emplace_back(kTokenTensor);
  else
    for (int64_t t = 0; t < call.tokens; t++) names.push_back(std::string(kTokenTensor) + "." + std::to_string(t));
  if (call.pads)
    for (const OutputSpec& output : spec.outputs)
      if (output.yields) names.push_back(std::string(kRowsPrefix) + output.name);
  if (spec.step) {
    names.emplace_back(kAnsweredTensor);
    for (const BoundaryTensor& output : call.task->front().spec().outputs)
      names.push_back(std::string(kAnswerPrefix) + output.name);
  }
  return names;
}

[[noreturn]] void throw_lost(const char* what, int error, bool executed) {
  throw ConnectionLost(std::string(what) + ": " + strerror(error), executed);
}

}  // namespace

Connection::~Connection() { close(); }

void Connection::close() {
  if (socket_ >= 0) ::close(socket_);
  socket_ = -1;
  registered_with_loop = false;
  region_ = {};
}

void Connection::open() {
  sockaddr_un to{};
  to.sun_family = AF_UNIX;
  if (server_.address.size() >= sizeof to.sun_path)
    throw ConnectionLost("the path of its socket is too long: " + server_.address, false);
  memcpy(to.sun_path, server_.address.data(), server_.address.size());
  socket_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (socket_ < 0) throw_lost("cannot create a socket", errno, false);
  if (connect(socket_, reinterpret_cast<sockaddr*>(&to), sizeof to) != 0) {
    int error = errno;
    close();
    throw_lost("cannot connect", error, false);
  }
}

void Connection::send() {
  if (socket_ >= 0) {
    // A server that was stopped has closed its idle connections: then connect again.
    char byte;
    ssize_t n = recv(socket_, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    if (n >= 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)) close();
  }
  if (socket_ < 0) open();
  reader_.begin();
  received_.clear();
  extra_outputs_.clear();
  missing_output_.clear();
  output_error_.reset();
  answered_flag_ = 0;
  build_request();
  flush();
}

std::vector<RegionSpan> Connection::place_tensors(const std::vector<size_t>& input_sizes) {
  const std::vector<OutputSpec>& outputs = call.task->spec().outputs;
  std::vector<RegionSpan> placed_inputs(input_sizes.size());
  placed_outputs_.assign(outputs.size(), {});
  region_wanted_ = 0;
  if (!call.regions_allowed) return placed_inputs;
  size_t offset = 0;
  auto reserve = [&offset](size_t size) {
    RegionSpan span{offset, size};
    offset += (size + 63) & ~size_t{63};
    return span;
  };
  for (size_t i = 0; i < input_sizes.size(); i++)
    if (input_sizes[i] >= kMinSharedBytes) placed_inputs[i] = reserve(input_sizes[i]);
  for (size_t o = 0; o < outputs.size(); o++) {
    if (!outputs[o].fixed()) continue;
    size_t size = size_t(call.items) * size_t(*element_count(outputs[o].shape)) * element_size(outputs[o].type);
    if (size >= kMinSharedBytes) placed_outputs_[o] = reserve(size);
  }
  if (offset && !has_region(offset)) {
    region_wanted_ = offset;
    placed_inputs.assign(input_sizes.size(), {});
    placed_outputs_.assign(outputs.size(), {});
  }
  return placed_inputs;
}

void Connection::build_request() {
  const TaskSpec& spec = call.task->spec();
  size_t inputs = spec.inputs.size();
  std::vector<size_t> sizes(inputs, 0);  // Bytes of each input for the whole batch.
  call.sent_bytes = 0;
  for (size_t i = 0; i < inputs; i++) {
    for_each_part(call, i, [&](std::string_view part) { sizes[i] += part.size(); });
    call.sent_bytes += sizes[i];
  }
  std::vector<RegionSpan> placed = place_tensors(sizes);
  std::vector<Shape> shapes;
  std::vector<CallInput> call_inputs;
  shapes.reserve(inputs);
  size_t following = 0;  // Bytes of the inputs that follow the head.
  for (size_t i = 0; i < inputs; i++) {
    const Shape& shape = shapes.emplace_back(stack_of(call.items, call.pieces[0].job->inputs[i].shape));
    call_inputs.push_back(
        {spec.inputs[i].name, spec.inputs[i].type, shape, sizes[i], placed[i].size ? &placed[i] : nullptr});
    if (!placed[i].size) following += sizes[i];
  }
  std::vector<CallOutput> call_outputs;
  for (size_t o = 0; o < spec.outputs.size(); o++)
    call_outputs.push_back({spec.outputs[o].name, placed_outputs_[o].size ? &placed_outputs_[o] : nullptr});
  std::vector<std::string> more = further_outputs(call);
  for (const std::string& name : more) call_outputs.push_back({name});

  std::string id = call.ids + '#' + std::to_string(call.number);
  head_.clear();
  append_inference(head_, call.worker->model, id, call.trace, region_.name(), call_inputs, call_outputs);

  std::vector<iovec>& buffers = send_buffers_.clear();
  bool join = following < kMaxCopiedBytes;
  if (join)
    head_.reserve(head_.size() + following);
  else
    buffers.push_back({head_.data(), head_.size()});
  for (size_t i = 0; i < inputs; i++) {
    char* to = placed[i].size ? region_.data() + placed[i].offset : nullptr;
    for_each_part(call, i, [&](std::string_view part) {
      if (to) {
        memcpy(to, part.data(), part.size());
        to += part.size();
      } else if (join) {
        head_.append(part);
      } else if (!part.empty()) {
        buffers.push_back({const_cast<char*>(part.data()), part.size()});
      }
    });
  }
  if (join) buffers.push_back({head_.data(), head_.size()});
}

void Connection::flush() {
  if (int error = send_buffers_.send(socket_)) throw_lost("cannot send", error, false);
}

bool Connection::receive(const AnswerReader::Place& place, bool executed) {
  while (!reader_.done()) {
    msghdr message = message_of(reader_.buffers());
    ssize_t n = recvmsg(socket_, &message, 0);
    if (n < 0) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN || errno == EWOULDBLOCK) return false;
      // A Unix socket is reset if its other end closes it before it has read all of the call. This happens if a proxy
      // closes an idle connection at that moment, and such a call was not executed.
      throw_lost("the connection broke", errno, executed && errno != ECONNRESET);
    }
    if (n == 0) throw ConnectionLost("it closed the connection before its answer was complete", executed);
    reader_.received(size_t(n), place);
  }
  return true;
}

bool Connection::resume() {
  flush();
  auto to_place = [this](const std::vector<AnswerOutput>& outputs, std::vector<iovec>& places) {
    place_outputs(outputs, places);
  };
  if (!receive(to_place, !sending())) return false;
  // If the server answered before it had read the whole request, it would read the rest as the next request.
  if (sending() || reader_.closes()) close();
  return true;
}

Region Connection::register_region(Region region, const std::string& secret) {
  Region old;
  if (region_) old = retire(secret);
  if (socket_ < 0) open();
  region_ = std::move(region);
  head_ = register_request(region_.name(), region_.size(), secret);
  send_buffers_.assign({{head_.data(), head_.size()}});
  reader_.begin(false);
  flush();
  return old;
}

bool Connection::resume_registration() {
  flush();
  return receive([](const std::vector<AnswerOutput>&, std::vector<iovec>&) {}, false);
}

Region Connection::retire(const std::string& secret) {
  if (socket_ >= 0 && region_) {
    std::string order = unregister_request(region_.name(), secret);
    // The server executes the request, although this process does not wait for the answer.
    [[maybe_unused]] ssize_t n = ::send(socket_, order.data(), order.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    shutdown(socket_, SHUT_WR);
  }
  Region region = std::move(region_);
  close();
  return region;
}

}  // namespace jigsaw
