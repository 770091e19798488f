#include "core/connection.h"

#include <errno.h>
#include <limits.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
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

[[noreturn]] void throw_lost(const char* what, int error, bool executed) {
  throw ConnectionLost(std::string(what) + ": " + strerror(error), executed);
}

std::span<const int64_t> item_of(const Shape& shape) { return std::span(shape).subspan(1); }

// Returns the shape of a stack of items.
Shape stacked(int64_t items, const Shape& item) {
  Shape shape;
  shape.reserve(item.size() + 1);
  shape.push_back(items);
  for (int64_t dim : item) shape.push_back(dim);
  return shape;
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

void Connection::build_request() {
  const TaskSpec& spec = call.task->spec();
  send_buffers_.clear();
  next_send_buffer_ = 0;
  size_t inputs = spec.inputs.size();
  // Bytes and shape of each input for the whole batch.
  std::vector<size_t> sizes(inputs, 0);
  std::vector<Shape> shapes(inputs);
  for (size_t i = 0; i < inputs; i++) {
    shapes[i] = stacked(call.items, call.pieces[0].job->inputs[i].shape);
    for (const Piece& piece : call.pieces) {
      const JobInput& input = piece.job->inputs[i];
      if (input.repeat == 1)
        sizes[i] += input.range(piece.start, piece.stop).size();
      else
        for (int64_t item_at = piece.start; item_at < piece.stop; item_at++) sizes[i] += input.entry(item_at).size();
    }
  }
  // Large tensors use shared memory if the region has enough space for all of them.
  placed_outputs_.assign(spec.outputs.size(), {});
  std::vector<RegionSpan> placed_inputs(inputs);
  region_wanted_ = 0;
  if (call.regions_allowed) {
    size_t offset = 0;
    auto reserve = [&offset](size_t size) {
      RegionSpan span{offset, size};
      offset += (size + 63) & ~size_t{63};
      return span;
    };
    for (size_t i = 0; i < inputs; i++)
      if (sizes[i] >= kMinSharedBytes) placed_inputs[i] = reserve(sizes[i]);
    for (size_t o = 0; o < spec.outputs.size(); o++) {
      if (!spec.outputs[o].fixed()) continue;
      size_t size =
          size_t(call.items) * size_t(*element_count(spec.outputs[o].shape)) * element_size(spec.outputs[o].type);
      if (size >= kMinSharedBytes) placed_outputs_[o] = reserve(size);
    }
    if (offset && !has_region(offset)) {
      region_wanted_ = offset;
      placed_inputs.assign(inputs, {});
      placed_outputs_.assign(spec.outputs.size(), {});
    }
  }
  size_t following = 0;
  for (size_t i = 0; i < inputs; i++)
    if (!placed_inputs[i].size) following += sizes[i];
  call.sent_bytes = 0;
  for (size_t size : sizes) call.sent_bytes += size;

  std::vector<CallInput> call_inputs;
  for (size_t i = 0; i < inputs; i++)
    call_inputs.push_back({spec.inputs[i].name, spec.inputs[i].type, shapes[i], sizes[i],
                           placed_inputs[i].size ? &placed_inputs[i] : nullptr});
  std::vector<CallOutput> call_outputs;
  for (size_t o = 0; o < spec.outputs.size(); o++)
    call_outputs.push_back({spec.outputs[o].name, placed_outputs_[o].size ? &placed_outputs_[o] : nullptr});
  std::vector<std::string> more;
  if (call.tokens == 1)
    more.emplace_back(kTokenTensor);
  else
    for (int64_t t = 0; t < call.tokens; t++) more.push_back(std::string(kTokenTensor) + "." + std::to_string(t));
  if (call.pads)
    for (const OutputSpec& output : spec.outputs)
      if (output.yields) more.push_back(std::string(kRowsPrefix) + output.name);
  if (spec.step) {
    more.emplace_back(kAnsweredTensor);
    for (const BoundaryTensor& output : call.task->front().spec().outputs)
      more.push_back(std::string(kAnswerPrefix) + output.name);
  }
  for (const std::string& name : more) call_outputs.push_back({name});

  std::string id = call.ids;
  id += '#';
  id += std::to_string(call.number);
  head_.clear();
  append_inference(head_, call.worker->model, id, call.trace, region_.name(), call_inputs, call_outputs);

  bool join = following < kMaxCopiedBytes;
  if (join)
    head_.reserve(head_.size() + following);
  else
    send_buffers_.push_back({head_.data(), head_.size()});
  for (size_t i = 0; i < inputs; i++) {
    char* to = placed_inputs[i].size ? region_.data() + placed_inputs[i].offset : nullptr;
    auto add = [&](std::string_view bytes) {
      if (to) {
        memcpy(to, bytes.data(), bytes.size());
        to += bytes.size();
      } else if (join) {
        head_.append(bytes);
      } else if (!bytes.empty()) {
        send_buffers_.push_back({const_cast<char*>(bytes.data()), bytes.size()});
      }
    };
    for (const Piece& piece : call.pieces) {
      const JobInput& input = piece.job->inputs[i];
      if (input.repeat == 1)
        add(input.range(piece.start, piece.stop));
      else
        for (int64_t item = piece.start; item < piece.stop; item++) add(input.entry(item));
    }
  }
  if (join) send_buffers_.push_back({head_.data(), head_.size()});
}

bool Connection::flush() {
  while (next_send_buffer_ < send_buffers_.size()) {
    msghdr message{};
    message.msg_iov = &send_buffers_[next_send_buffer_];
    message.msg_iovlen = std::min<size_t>(send_buffers_.size() - next_send_buffer_, IOV_MAX);
    ssize_t n = sendmsg(socket_, &message, MSG_NOSIGNAL);
    if (n < 0) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN || errno == EWOULDBLOCK) return false;
      throw_lost("cannot send", errno, false);
    }
    auto left = size_t(n);
    while (left) {
      iovec& first = send_buffers_[next_send_buffer_];
      size_t step = std::min(left, first.iov_len);
      first.iov_base = static_cast<char*>(first.iov_base) + step;
      first.iov_len -= step;
      left -= step;
      if (!first.iov_len) next_send_buffer_++;
    }
  }
  return true;
}

bool Connection::resume() {
  if (sending()) flush();
  auto to_place = [this](const std::vector<AnswerOutput>& outputs, std::vector<iovec>& places) {
    place_outputs(outputs, places);
  };
  while (!reader_.done()) {
    std::span<iovec> room = reader_.buffers();
    msghdr message{};
    message.msg_iov = room.data();
    message.msg_iovlen = std::min<size_t>(room.size(), IOV_MAX);
    ssize_t n = recvmsg(socket_, &message, 0);
    if (n < 0) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN || errno == EWOULDBLOCK) return false;
      // A Unix socket is reset if its other end closes it before it has read all of the call. This happens if a proxy
      // closes an idle connection at that moment, and such a call was not executed.
      throw_lost("the connection broke", errno, !sending() && errno != ECONNRESET);
    }
    if (n == 0) throw ConnectionLost("it closed the connection before its answer was complete", !sending());
    reader_.received(size_t(n), to_place);
  }
  // If the server answered before it had read the whole request, it would read the rest as the next request.
  if (sending() || reader_.closes()) close();
  return true;
}

void Connection::place_outputs(const std::vector<AnswerOutput>& outputs, std::vector<iovec>& places) {
  const TaskSpec& spec = call.task->spec();
  tokens_.assign(size_t(call.tokens), {});
  rows_.assign(spec.outputs.size(), {});
  std::vector<bool> seen(spec.outputs.size(), false);
  for (const AnswerOutput& output : outputs) {
    auto index = size_t(std::find_if(spec.outputs.begin(), spec.outputs.end(),
                                     [&](const OutputSpec& declared) { return declared.name == output.name; }) -
                        spec.outputs.begin());
    if (index < spec.outputs.size()) {
      if (seen[index]) throw FormatError("the answer contains output " + output.name + " twice");
      seen[index] = true;
      const char* from = nullptr;
      if (output.placed) {
        const RegionSpan& span = placed_outputs_[index];
        size_t bytes = size_t(*element_count(output.shape)) * element_size(output.type);
        if (!span.size || bytes > span.size)
          throw FormatError("output " + output.name + " does not fit into its part of shared memory");
        from = region_.data() + span.offset;
      }
      size_t before = places.size();
      try {
        place_output(output, index, from, places);
      } catch (const AnswerError& error) {
        // Read on: the tokens at the end may show that this is the answer to another call, which is the worse error.
        if (!output_error_) output_error_ = error;
        places.resize(before);
        if (!from) receive_extra(output, places);
      }
      continue;
    }
    if (output.placed) throw FormatError("output " + output.name + " has no values in the answer");
    if (output.name.starts_with(kTokenTensor) && output.type == DataType::kInt64) {
      size_t number = 0;
      if (output.name.size() > kTokenTensor.size() + 1) {
        const char *digits = output.name.data() + kTokenTensor.size() + 1,
                   *end = output.name.data() + output.name.size();
        // A name that does not end in a number is not a token.
        if (std::from_chars(digits, end, number).ec != std::errc()) number = tokens_.size();
      }
      if (number < tokens_.size() && tokens_[number].empty()) {
        tokens_[number].resize(output.size / sizeof(int64_t));
        places.push_back({tokens_[number].data(), output.size});
        continue;
      }
    }
    if (call.pads && output.name.starts_with(kRowsPrefix) && output.type == DataType::kInt64) {
      std::string of = output.name.substr(kRowsPrefix.size());
      auto counted =
          std::find_if(spec.outputs.begin(), spec.outputs.end(), [&](const OutputSpec& o) { return o.name == of; });
      if (counted != spec.outputs.end() && rows_[size_t(counted - spec.outputs.begin())].empty()) {
        std::vector<int64_t>& rows = rows_[size_t(counted - spec.outputs.begin())];
        rows.resize(output.size / sizeof(int64_t));
        places.push_back({rows.data(), output.size});
        continue;
      }
    }
    if (spec.step && output.name == kAnsweredTensor && output.size == 1) {
      places.push_back({&answered_flag_, 1});
      continue;
    }
    receive_extra(output, places);
  }
  for (size_t o = 0; o < seen.size() && missing_output_.empty(); o++)
    if (!seen[o]) missing_output_ = spec.outputs[o].name;
}

void Connection::receive_extra(const AnswerOutput& output, std::vector<iovec>& places) {
  Value value;
  value.type = output.type;
  value.shape = output.shape;
  value.size = output.size;
  value.owner = std::shared_ptr<char[]>(new char[std::max<size_t>(output.size, 1)]);
  value.data = value.owner.get();
  places.push_back({value.owner.get(), output.size});
  extra_outputs_.emplace_back(output.name, std::move(value));
}

void Connection::place_output(const AnswerOutput& output, size_t index, const char* from, std::vector<iovec>& places) {
  const OutputSpec& declared = call.task->spec().outputs[index];
  if (output.type != declared.type)
    throw AnswerError(Blame::kModel, "output " + output.name + " is of type " + name_of(output.type) + " where " +
                                         name_of(declared.type) + " was declared");
  Shape expected = stacked(call.items, declared.shape);
  bool fits = std::equal(expected.begin(), expected.end(), output.shape.begin(), output.shape.end(),
                         [](int64_t wanted, int64_t found) { return wanted < 0 || wanted == found; });
  if (!fits)
    throw AnswerError(Blame::kModel, "output " + output.name + " has shape " + text_of(output.shape) + " where " +
                                         text_of(expected) + " was declared");
  auto item = item_of(output.shape);
  Shape item_shape(item.begin(), item.end());
  if (declared.fixed() && !declared.yields) {
    size_t item_size = size_t(*element_count(item)) * element_size(declared.type);
    for (const Piece& piece : call.pieces) {
      char* to = piece.job->output_memory(call.task->spec(), index, item_shape, piece.start);
      size_t size = item_size * size_t(piece.size());
      if (from) {
        memcpy(to, from, size);
        from += size;
      } else {
        places.push_back({to, size});
      }
    }
    return;
  }
  size_t size = from ? size_t(*element_count(output.shape)) * element_size(output.type) : output.size;
  Received received{output.name, std::move(item_shape), nullptr, size, index, {}};
  received.data = std::shared_ptr<char[]>(new char[std::max<size_t>(size, 1)]);
  if (from)
    memcpy(received.data.get(), from, size);
  else
    places.push_back({received.data.get(), size});
  received_.push_back(std::move(received));
}

bool Connection::tokens_match() const {
  return std::all_of(tokens_.begin(), tokens_.end(), [this](const std::vector<int64_t>& tokens) {
    return int64_t(tokens.size()) == call.items &&
           std::all_of(tokens.begin(), tokens.end(), [this](int64_t token) { return token == int64_t(call.number); });
  });
}

void Connection::check_outputs() {
  if (output_error_) throw *output_error_;
  // A step that answers the whole request may omit its own outputs.
  if (!missing_output_.empty() && !answered_flag_)
    throw AnswerError(Blame::kModel, "output " + missing_output_ + " is missing");
  for (Received& received : received_) {
    const OutputSpec& declared = call.task->spec().outputs[received.output];
    if (declared.type == DataType::kBytes) {
      try {
        received.offsets =
            bytes_offsets({received.data.get(), received.size}, *element_count(received.shape) * call.items);
      } catch (const FormatError& error) {
        throw AnswerError(Blame::kModel, "output " + received.name + ": " + error.what());
      }
    }
    if (!call.pads || !declared.yields) continue;
    const std::vector<int64_t>& rows = rows_[received.output];
    int64_t most = received.shape[0];
    if (int64_t(rows.size()) != call.items ||
        std::any_of(rows.begin(), rows.end(), [most](int64_t count) { return count < 0 || count > most; }))
      throw AnswerError(Blame::kModel, "output " + received.name + " has no valid number of rows for each item in " +
                                           std::string(kRowsPrefix) + received.name);
  }
}

void Connection::deliver() {
  check_outputs();
  for (const Received& received : received_) {
    auto per_item = size_t(*element_count(received.shape));
    const std::vector<size_t>& offsets = received.offsets;
    if (call.pads && call.task->spec().outputs[received.output].yields) {
      deliver_rows(received);
      continue;
    }
    int64_t at = 0;
    for (const Piece& piece : call.pieces) {
      size_t begin, end;
      if (!offsets.empty()) {
        begin = offsets[size_t(at) * per_item];
        end = offsets[size_t(at + piece.size()) * per_item];
      } else {
        size_t item = received.size / size_t(call.items);
        begin = size_t(at) * item;
        end = size_t(at + piece.size()) * item;
      }
      piece.job->add_chunk(received.output, {piece.start, piece.stop, received.shape, received.data,
                                             received.data.get() + begin, end - begin});
      at += piece.size();
    }
  }
  received_.clear();
}

// Passes on the rows of each item without their padding to the largest number of rows.
void Connection::deliver_rows(const Received& received) {
  const std::vector<int64_t>& rows = rows_[received.output];
  const std::vector<size_t>& offsets = received.offsets;
  int64_t most = received.shape[0];
  auto elements = size_t(*element_count(received.shape));
  size_t per_row = most ? elements / size_t(most) : 0;
  int64_t at = 0;
  for (const Piece& piece : call.pieces) {
    for (int64_t item = piece.start; item < piece.stop; item++, at++) {
      int64_t count = rows[size_t(at)];
      size_t first = size_t(at) * elements, last = first + size_t(count) * per_row;
      size_t begin = first, end = last;
      if (!offsets.empty()) {
        begin = offsets[first];
        end = offsets[last];
      } else {
        size_t element = element_size(call.task->spec().outputs[received.output].type);
        begin *= element;
        end *= element;
      }
      Shape shape = received.shape;
      shape[0] = count;
      piece.job->add_chunk(received.output,
                           {item, item + 1, std::move(shape), received.data, received.data.get() + begin, end - begin});
    }
  }
}

bool Connection::answered_early() const { return answered_flag_ != 0; }

std::vector<std::pair<std::string, Value>> Connection::early_outputs() const {
  std::vector<std::pair<std::string, Value>> found;
  for (const auto& [name, value] : extra_outputs_)
    if (name.starts_with(kAnswerPrefix)) found.emplace_back(name.substr(kAnswerPrefix.size()), value);
  return found;
}

Region Connection::register_region(Region region, const std::string& secret) {
  Region old;
  if (region_) old = retire(secret);
  if (socket_ < 0) open();
  region_ = std::move(region);
  head_ = register_request(region_.name(), region_.size(), secret);
  send_buffers_.assign(1, {head_.data(), head_.size()});
  next_send_buffer_ = 0;
  reader_.begin(false);
  flush();
  return old;
}

bool Connection::resume_registration() {
  if (sending()) flush();
  while (!reader_.done()) {
    std::span<iovec> room = reader_.buffers();
    msghdr message{};
    message.msg_iov = room.data();
    message.msg_iovlen = room.size();
    ssize_t n = recvmsg(socket_, &message, 0);
    if (n < 0) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN || errno == EWOULDBLOCK) return false;
      throw_lost("the connection broke", errno, false);
    }
    if (n == 0) throw ConnectionLost("it closed the connection", false);
    reader_.received(size_t(n), [](const std::vector<AnswerOutput>&, std::vector<iovec>&) {});
  }
  return true;
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
