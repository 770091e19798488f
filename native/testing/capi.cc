// C interface of the core for tests in Python. The caller owns the returned texts and frees them with
// `jigsaw_text_free`. Errors are returned as {"error": message}.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/batch_delay.h"
#include "core/engine.h"
#include "core/front.h"
#include "core/http.h"
#include "core/json.h"
#include "core/lock.h"
#include "core/service.h"
#include "core/spec.h"
#include "testing/client.h"
#include "testing/recorder.h"

namespace jigsaw {
namespace {

// An engine with its host.
struct TestEngine {
  Recorder host;
  std::unique_ptr<Engine> engine;
};

// Locks that are kept, and when they are to be released.
struct TestLocks {
  uint64_t due = 0;
  KeptLocks kept{[this](Time at) { due = at; }};
};

using SharedUsers = std::shared_ptr<Users>;

char* copy(const std::string& text) {
  char* made = static_cast<char*>(malloc(text.size() + 1));
  memcpy(made, text.c_str(), text.size() + 1);
  return made;
}

std::string error_json(const std::exception& error) {
  std::string text = "{\"error\":";
  append_json(text, error.what());
  return text + "}";
}

// Returns the text that a function returns, or the error that it throws.
template <typename Function>
char* text_or_error(Function function) {
  try {
    return copy(function());
  } catch (const std::exception& error) {
    return copy(error_json(error));
  }
}

Durations durations(std::string_view json) {
  Durations found;
  Json parsed = Json::parse(json);
  for (const auto& [batch, duration_ms] : parsed.object("durations").members())
    found.emplace_back(std::stoll(batch), duration_ms.number(batch));
  return found;
}

// Reads an answer in pieces of these sizes, which repeat. Returns the result as JSON.
std::string read_answer(std::string_view data, const std::vector<size_t>& sizes, bool inference) {
  AnswerReader reader;
  std::vector<AnswerOutput> outputs;
  std::vector<std::unique_ptr<char[]>> values;
  auto place = [&](const std::vector<AnswerOutput>& found, std::vector<iovec>& places) {
    outputs = found;
    for (const AnswerOutput& output : found) {
      values.push_back(std::make_unique<char[]>(output.size));
      if (output.size) places.push_back({values.back().get(), output.size});
    }
  };
  reader.begin(inference);
  size_t piece = 0;
  while (!reader.done() && !data.empty()) {
    size_t left = std::min(data.size(), sizes[piece++ % sizes.size()]), took = 0;
    for (const iovec& at : reader.buffers()) {
      size_t step = std::min(left, at.iov_len);
      memcpy(at.iov_base, data.data() + took, step);
      took += step;
      left -= step;
    }
    data.remove_prefix(took);
    reader.received(took, place);
  }
  std::string text = "{\"done\":" + std::string(reader.done() ? "true" : "false");
  text += ",\"left\":" + std::to_string(data.size()) + ",\"status\":" + std::to_string(reader.status());
  text += ",\"reason\":";
  append_json(text, reader.done() && reader.status() != 200 ? answer_error(reader.text(), reader.status()) : "");
  text += ",\"outputs\":[";
  for (size_t i = 0; i < outputs.size(); i++) {
    if (i) text += ',';
    text += "{\"name\":";
    append_json(text, outputs[i].name);
    text += std::string(",\"dtype\":\"") + name_of(outputs[i].type) + "\",\"shape\":" + text_of(outputs[i].shape);
    text += std::string(",\"placed\":") + (outputs[i].placed ? "true" : "false") + ",\"bytes\":[";
    for (size_t at = 0; at < outputs[i].size; at++) text += (at ? "," : "") + std::to_string(uint8_t(values[i][at]));
    text += "]}";
  }
  return text + "]}";
}

}  // namespace
}  // namespace jigsaw

using jigsaw::BatchDelay;
using jigsaw::Client;
using jigsaw::FileLock;
using jigsaw::Front;
using jigsaw::RunningTime;
using jigsaw::ServiceTimes;
using jigsaw::SharedUsers;
using jigsaw::TestEngine;
using jigsaw::TestLocks;
using jigsaw::Users;

extern "C" {

void jigsaw_text_free(char* text) { free(text); }

TestEngine* jigsaw_engine_new(const char* run_dir, const char* secret, const char* region_prefix) {
  auto* made = new TestEngine;
  made->engine = std::make_unique<jigsaw::Engine>(made->host, jigsaw::Settings{run_dir, secret, region_prefix});
  return made;
}

void jigsaw_engine_free(TestEngine* engine) { delete engine; }

char* jigsaw_engine_state(TestEngine* engine) { return jigsaw::copy(engine->host.json()); }

// Returns nullptr and sets `error` if the specification is invalid.
Front* jigsaw_front_new(TestEngine* engine, const char* model, const char* spec, size_t size, char** error) {
  try {
    return new Front(*engine->engine, model, {spec, size});
  } catch (const std::exception& wrong) {
    *error = jigsaw::copy(wrong.what());
    return nullptr;
  }
}

void jigsaw_front_free(Front* front) { delete front; }

// Sends the same request `count` times and stores the requests in `clients`. Returns an error message, or nullptr.
char* jigsaw_submit(Front* front, const char* json, size_t json_size, const char* data, size_t size, size_t count,
                    Client** clients) {
  try {
    for (size_t i = 0; i < count; i++) clients[i] = new Client(front->spec(), {json, json_size}, {data, size});
    for (size_t i = 0; i < count; i++) clients[i]->submit(*front);
    return nullptr;
  } catch (const std::exception& error) {
    return jigsaw::copy(error.what());
  }
}

void jigsaw_request_cancel(Client* client) { client->cancel(); }

int jigsaw_request_wait(Client* client, double seconds) { return client->wait(seconds); }

char* jigsaw_request_outcome(Client* client) { return jigsaw::copy(client->outcome()); }

const char* jigsaw_request_data(Client* client, size_t place) { return client->data(place); }

void jigsaw_request_free(Client* client) { client->drop(); }

char* jigsaw_parse_spec(const char* text, size_t size) {
  return jigsaw::text_or_error([&] {
    jigsaw::FrontSpec spec = jigsaw::FrontSpec::parse({text, size});
    return "{\"tasks\":" + std::to_string(spec.tasks.size()) + ",\"tensors\":" + std::to_string(spec.tensors.size()) +
           "}";
  });
}

char* jigsaw_parse_route(const char* text, size_t size) {
  return jigsaw::text_or_error(
      [&] { return "{\"entries\":" + std::to_string(jigsaw::parse_route({text, size}).entries.size()) + "}"; });
}

char* jigsaw_read_answer(const char* data, size_t size, const size_t* sizes, size_t count, int inference) {
  return jigsaw::text_or_error(
      [&] { return jigsaw::read_answer({data, size}, std::vector<size_t>(sizes, sizes + count), inference); });
}

ServiceTimes* jigsaw_times_new(const char* profile) {
  auto* made = new ServiceTimes;
  made->profile(jigsaw::durations(profile));
  return made;
}

void jigsaw_times_free(ServiceTimes* times) { delete times; }

void jigsaw_times_add(ServiceTimes* times, int64_t items, uint64_t took) { times->add(items, took); }

double jigsaw_times_mean(ServiceTimes* times, int64_t items) { return times->mean(items); }

double jigsaw_times_high(ServiceTimes* times, int64_t items) { return times->high(items); }

BatchDelay* jigsaw_delay_new() { return new BatchDelay; }

void jigsaw_delay_free(BatchDelay* delay) { delete delay; }

// `results` is -1 if the requests come from clients.
int jigsaw_delay_waits(BatchDelay* delay, uint64_t longest, uint64_t latest, int64_t results, uint64_t at) {
  return delay->waits(longest, latest, results < 0 ? std::nullopt : std::optional<jigsaw::Time>(results), at);
}

void jigsaw_delay_reset(BatchDelay* delay) { delay->reset(); }

uint64_t jigsaw_delay_end(BatchDelay* delay) { return delay->end(); }

void jigsaw_delay_announce(BatchDelay* delay, int64_t requests, uint64_t at) { delay->announce(requests, at); }

void jigsaw_delay_arrived(BatchDelay* delay, uint64_t at) { delay->arrived(at); }

void jigsaw_delay_call_ended(BatchDelay* delay) { delay->call_ended(); }

RunningTime* jigsaw_running_new() { return new RunningTime; }

void jigsaw_running_free(RunningTime* running) { delete running; }

int jigsaw_running_step(RunningTime* running, uint64_t now) { return running->step(now); }

uint64_t jigsaw_running_at(RunningTime* running, uint64_t now) { return running->at(now); }

TestLocks* jigsaw_locks_new() { return new TestLocks; }

void jigsaw_locks_free(TestLocks* locks) { delete locks; }

uint64_t jigsaw_locks_release(TestLocks* locks, uint64_t now) { return locks->kept.release(now); }

// Returns the last time at which `release` was to be called; 0 for none.
uint64_t jigsaw_locks_due(TestLocks* locks) { return locks->due; }

SharedUsers* jigsaw_users_new(TestLocks* locks, const char* path) {
  return new SharedUsers(std::make_shared<Users>(locks->kept, path, FileLock::Kind::kExclusive));
}

void jigsaw_users_free(SharedUsers* users) { delete users; }

// Returns 0 if the file could not be locked, 2 if this user locked it, and else 1.
int jigsaw_users_add(SharedUsers* users, uint64_t now) {
  bool locked = false;
  return (*users)->add(now, locked) ? 1 + locked : 0;
}

void jigsaw_users_remove(SharedUsers* users, uint64_t now) { (*users)->remove(now); }

}  // extern "C"
