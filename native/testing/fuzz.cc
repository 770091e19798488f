#include "testing/fuzz.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/connection.h"
#include "core/engine.h"
#include "core/flow.h"
#include "core/front.h"
#include "core/http.h"
#include "core/json.h"
#include "core/lock.h"
#include "core/served_call.h"
#include "core/spec.h"
#include "testing/recorder.h"

namespace jigsaw {
namespace {

// Maximum size of an output in a fuzzed answer, because memory exhaustion is not a target of the test.
constexpr size_t kMaxAnnouncedBytes = size_t{1} << 20;

// Aborts if an invariant is violated.
void require(bool holds, const char* what) {
  if (holds) return;
  fprintf(stderr, "violated invariant: %s\n", what);
  abort();
}

// Reads an answer and returns its state and the bytes of its outputs. With seed 0 it is read as a whole.
std::string outcome(std::string_view data, uint32_t seed) {
  AnswerReader reader;
  std::vector<std::unique_ptr<char[]>> memory;
  std::vector<size_t> sizes;
  auto place = [&](const std::vector<AnswerOutput>& outputs, std::vector<iovec>& places) {
    for (const AnswerOutput& output : outputs) {
      if (output.size > kMaxAnnouncedBytes) throw FormatError("too much");
      memory.push_back(std::make_unique<char[]>(output.size));
      sizes.push_back(output.size);
      places.push_back({memory.back().get(), output.size});
    }
  };
  std::string text;
  try {
    reader.begin();
    while (!reader.done() && !data.empty()) {
      std::span<iovec> room = reader.buffers();
      require(!room.empty() && room[0].iov_len > 0, "there is memory for more bytes until the answer is complete");
      size_t left = data.size(), took = 0;
      if (seed) {
        seed = seed * 1103515245 + 12345;
        left = std::min<size_t>(left, 1 + seed / 65536 % 40);
      }
      for (const iovec& at : room) {
        size_t step = std::min(left, at.iov_len);
        if (step) memcpy(at.iov_base, data.data() + took, step);
        took += step;
        left -= step;
      }
      data.remove_prefix(took);
      reader.received(took, place);
    }
    text = reader.done() ? "done " + std::to_string(reader.status()) : "waits";
    if (!reader.done()) return text;
    if (reader.status() != 200) text += answer_error(reader.text(), reader.status());
    for (size_t i = 0; i < sizes.size(); i++) text.append(memory[i].get(), sizes[i]);
  } catch (const FormatError&) {
    return "refused";
  }
  return text;
}

// Reads the requests of a connection and returns what they ask for. With seed 0 the bytes come at once.
std::string requests_in(std::string_view data, uint32_t seed) {
  RequestReader reader;
  std::string text;
  try {
    while (!data.empty()) {
      std::span<char> room = reader.room();
      require(!room.empty(), "there is memory for more bytes until the request is complete");
      size_t took = std::min(data.size(), room.size());
      if (seed) {
        seed = seed * 1103515245 + 12345;
        took = std::min<size_t>(took, 1 + seed / 65536 % 40);
      }
      memcpy(room.data(), data.data(), took);
      data.remove_prefix(took);
      reader.received(took);
      if (!reader.done()) continue;
      text += reader.head().method + reader.head().path + reader.head().secret;
      RequestBody body = reader.take();
      text += body.text();
      text.append(body.tensors(), body.size - body.json);
      try {
        ServedCall call = parse_call(body.text(), body.size - body.json);
        size_t total = 0;
        for (const ServedInput& input : call.inputs)
          if (!input.placed) total += input.size;
        require(total == body.size - body.json, "the inputs are inside the body");
      } catch (const FormatError&) {
        text += "refused";
      }
    }
  } catch (const FormatError&) {
    return "refused";
  } catch (const std::bad_alloc&) {
    return "refused";
  }
  return text;
}

// A request whose outputs are ignored.
class NullRequest : public Request {
 public:
  std::string_view id() const override { return {}; }
  bool cancelled() const override { return false; }
  char* allocate(size_t, DataType, const Shape& shape, size_t size) override {
    require(element_count(shape).has_value(), "an output's shape can be counted");
    if (size > kMaxAnnouncedBytes) throw std::runtime_error("too much");
    memory_.push_back(std::make_unique<char[]>(size));
    return memory_.back().get();
  }
  void respond(const Failure*, const Timing&) override {}
  void release() override {}

 private:
  std::vector<std::unique_ptr<char[]>> memory_;
};

// Specification with all kinds of tasks: fixed and varying shapes, texts, nested rows, and a step.
constexpr const char* kSpec = R"({"version": 2, "graph": "g", "slo_ms": 60000,
  "inputs": [{"name": "X", "dtype": "INT32", "shape": [1]}, {"name": "R", "dtype": "INT32", "shape": [-1, 1]}],
  "outputs": [{"name": "Y", "dtype": "INT32", "shape": [2], "tensor": "a.Y"},
              {"name": "Z", "dtype": "BYTES", "shape": [-1, -1], "tensor": "c.Z"}],
  "tasks": [
    {"name": "a", "route": "a", "mode": "stack", "deadline_ms": 1000,
     "inputs": [{"name": "X", "dtype": "INT32", "shape": [1], "tensor": "inputs.X"}],
     "outputs": [{"name": "Y", "dtype": "INT32", "shape": [2]}, {"name": "V", "dtype": "FP32", "shape": [-1]}]},
    {"name": "b", "route": "b", "mode": "items", "deadline_ms": 1000, "step": true,
     "inputs": [{"name": "X", "dtype": "INT32", "shape": [1], "tensor": "inputs.X"}],
     "outputs": [{"name": "Y", "dtype": "INT32", "shape": [2]}, {"name": "T", "dtype": "BYTES", "shape": [1]}]},
    {"name": "c", "route": "c", "mode": "rows", "deadline_ms": 1000, "counts": {"N": "Z"},
     "inputs": [{"name": "R", "dtype": "INT32", "shape": [1], "tensor": "inputs.R", "iterated": true},
                {"name": "X", "dtype": "INT32", "shape": [1], "tensor": "inputs.X"}],
     "outputs": [{"name": "Z", "dtype": "BYTES", "shape": [-1, -1], "yields": true},
                 {"name": "W", "dtype": "INT64", "shape": [-1, 2], "yields": true},
                 {"name": "B", "dtype": "BYTES", "shape": [-1]}]}]})";

// A Unix socket that answers one connection at a time. It has a path, because `Connection` cannot connect to an
// abstract address.
class Listener {
 public:
  Listener() : path_("/tmp/jigsaw-fuzz-" + std::to_string(getpid()) + ".sock") {
    unlink(path_.c_str());
    sockaddr_un name{};
    name.sun_family = AF_UNIX;
    memcpy(name.sun_path, path_.data(), path_.size());
    socket_ = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    require(bind(socket_, reinterpret_cast<sockaddr*>(&name), sizeof name) == 0 && listen(socket_, 8) == 0,
            "the socket listens");
  }
  ~Listener() {
    close(socket_);
    unlink(path_.c_str());
  }

  const std::string& path() const { return path_; }

  // Accepts the pending connection, answers it and closes it.
  void answer(std::string_view data) {
    int client = accept(socket_, nullptr, nullptr);
    require(client >= 0, "there is a pending connection");
    [[maybe_unused]] ssize_t sent = ::send(client, data.data(), data.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    // Read the request, because closing with unread data would reset the connection.
    char asked[8192];
    while (recv(client, asked, sizeof asked, MSG_DONTWAIT) == ssize_t(sizeof asked)) {
    }
    close(client);
  }

 private:
  std::string path_;
  int socket_;
};

// An engine whose calls are answered by the fuzzer.
struct CallFuzzer {
  Recorder host;
  Listener listener;
  KeptLocks kept_locks{[](Time) {}};
  Engine engine{host, Settings{"/nonexistent", "", ""}};
  Front front{engine, "front", kSpec};
  FlowPlan plan = plan_flow(front.spec(), {0, 1});

  void run(size_t task_index, bool tokens, bool pads, std::string_view answer) {
    auto server = std::make_shared<Server>("w", listener.path(), true);
    auto worker = std::make_shared<Worker>(server, "m", kept_locks, "/nonexistent/slot");
    NullRequest null_request;
    int32_t data[] = {1, 2, 3, 4};
    std::vector<Value> inputs(2);
    inputs[0] = {DataType::kInt32, {2, 1}, reinterpret_cast<const char*>(data), 8, nullptr};
    inputs[1] = {DataType::kInt32, {2, 2, 1}, reinterpret_cast<const char*>(data), 16, nullptr};
    Flow flow(front, plan, &null_request, inputs, now(), kNever, kNever, "", std::make_shared<Binding>(1));
    Task& task = *front.tasks()[task_index];
    std::vector<Value> values(front.spec().tensors.size());
    values[0] = inputs[0];
    values[1] = inputs[1];
    Job job;
    job.flow = &flow;
    job.task = &task;
    require(!job.take_inputs(task.spec(), values, true), "the inputs of the request are valid");
    Connection connection(*server);
    Call& call = connection.call;
    call.number = 7;
    call.task = &task;
    call.worker = std::move(worker);
    call.tokens = tokens ? 1 : 0;
    call.pads = pads;
    int64_t items = task_index == 0 || (pads && task_index == 2) ? job.items : 1;
    call.pieces.emplace_back(&job, 0, items);
    call.items = items;
    try {
      connection.send();
      listener.answer(answer);
      require(connection.resume(), "the answer is complete or the connection is closed");
      if (connection.status() != 200) {
        connection.error();
        return;
      }
      if (!connection.tokens_match()) return;
      connection.deliver();
      connection.early_outputs();
      if (connection.answered_early() || items < job.items) return;
      job.join_outputs(task.spec(), values);
    } catch (const std::exception&) {
      // The answer was rejected.
    }
  }
};

}  // namespace

void fuzz_answer(const uint8_t* data, size_t size) {
  if (size == 0) return;
  std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  std::string whole = outcome(text, 0), pieces = outcome(text, 1 + data[0]);
  // An answer with excess bytes is only rejected if they arrive together with its end, so pieces may be accepted.
  if (whole != "refused") require(whole == pieces, "an answer in pieces reads the same as the whole");
}

void fuzz_request(const uint8_t* data, size_t size) {
  if (size == 0) return;
  std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  std::string whole = requests_in(text, 0), pieces = requests_in(text, 1 + data[0]);
  // Bytes that follow a request are only rejected if they arrive together with it, so pieces may be accepted.
  if (whole != "refused") require(whole == pieces, "a request in pieces reads the same as the whole");
}

void fuzz_documents(const uint8_t* data, size_t size) {
  std::string_view text(reinterpret_cast<const char*>(data), size);
  auto attempt = [](auto function) {
    try {
      function();
    } catch (const FormatError&) {
      // The document was rejected.
    }
  };
  attempt([&] { FrontSpec::parse(text); });
  attempt([&] { parse_route(text); });
  attempt([&] { parse_registration(text); });
  attempt([&] {
    Json json = Json::parse(text);
    if (json.kind() != Json::Kind::kString) return;
    // Writing and parsing must return the same string.
    std::string written;
    append_json(written, json.string("text"));
    require(Json::parse(written).string("text") == json.string("text"), "a string round-trips");
  });
}

void fuzz_call(const uint8_t* data, size_t size) {
  if (size == 0) return;
  static auto* fuzzer = new CallFuzzer;
  fuzzer->run(data[0] % 3, data[0] & 64, data[0] & 128, {reinterpret_cast<const char*>(data) + 1, size - 1});
}

}  // namespace jigsaw

extern "C" {

void jigsaw_fuzz_answer(const uint8_t* data, size_t size) { jigsaw::fuzz_answer(data, size); }
void jigsaw_fuzz_request(const uint8_t* data, size_t size) { jigsaw::fuzz_request(data, size); }
void jigsaw_fuzz_documents(const uint8_t* data, size_t size) { jigsaw::fuzz_documents(data, size); }
void jigsaw_fuzz_call(const uint8_t* data, size_t size) { jigsaw::fuzz_call(data, size); }
}
