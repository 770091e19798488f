// Functions by which tests control the fake server, from Python.
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "core/json.h"
#include "testing/fake_triton.h"

using jigsaw::Json;
using jigsaw::testing::Server;
using jigsaw::testing::server;

extern "C" {

TRITONSERVER_Error* TRITONBACKEND_Initialize(TRITONBACKEND_Backend*);
TRITONSERVER_Error* TRITONBACKEND_ModelInitialize(TRITONBACKEND_Model*);
TRITONSERVER_Error* TRITONBACKEND_ModelFinalize(TRITONBACKEND_Model*);
TRITONSERVER_Error* TRITONBACKEND_ModelInstanceInitialize(TRITONBACKEND_ModelInstance*);
TRITONSERVER_Error* TRITONBACKEND_ModelInstanceFinalize(TRITONBACKEND_ModelInstance*);
TRITONSERVER_Error* TRITONBACKEND_ModelInstanceExecute(TRITONBACKEND_ModelInstance*, TRITONBACKEND_Request**, uint32_t);
}

namespace {

// Returns the text of an error and deletes the error; nullptr for no error.
char* text_of_error(TRITONSERVER_Error* error) {
  if (!error) return nullptr;
  char* text = strdup(error->message.c_str());
  TRITONSERVER_ErrorDelete(error);
  return text;
}

int64_t number(const Json& json, std::string_view name, int64_t otherwise) {
  const Json* found = json.find(name);
  return found ? found->integer(name) : otherwise;
}

std::unique_ptr<TRITONBACKEND_Request> read_request(const Json& json, std::string_view data) {
  auto request = std::make_unique<TRITONBACKEND_Request>();
  request->answer = std::make_shared<Answer>();
  if (const Json* id = json.find("id")) request->id = id->string("id");
  request->timeout_us = uint64_t(number(json, "timeout_us", 0));
  request->output_on_gpu = number(json, "output_on_gpu", 0) != 0;
  request->cancelled = number(json, "cancelled", 0) != 0;
  for (const Json& item : json.at("inputs", "request").array("inputs")) {
    TRITONBACKEND_Input input;
    input.name = item.at("name", "input").string("name");
    input.type = jigsaw::data_type(item.at("dtype", "input").string("dtype"));
    for (const Json& dim : item.at("shape", "input").array("shape")) input.shape.push_back(dim.integer("shape"));
    input.on_gpu = number(item, "on_gpu", 0) != 0;
    auto size = size_t(number(item, "size", 0)), parts = size_t(number(item, "buffers", 1));
    std::string_view whole = data.substr(0, size);
    data.remove_prefix(size);
    for (size_t part = 0; part < parts; part++) {
      size_t begin = size * part / parts, end = size * (part + 1) / parts;
      input.buffers.emplace_back(whole.substr(begin, end - begin));
    }
    request->inputs.push_back(std::move(input));
  }
  if (const Json* outputs = json.find("outputs"))
    for (const Json& name : outputs->array("outputs")) request->outputs.push_back(name.string("outputs"));
  if (const Json* parameters = json.find("parameters"))
    for (const auto& [name, value] : parameters->object("parameters").members())
      request->parameters.emplace_back(name, value.integer(name));
  server().requests++;
  return request;
}

}  // namespace

extern "C" {

// Restarts as a server with this version of the backend API. Returns an error message, or nullptr.
char* triton_start(uint32_t major, uint32_t minor) {
  {
    std::lock_guard lock(server().mutex);
    server().major = major;
    server().minor = minor;
    server().failing.clear();
    server().logs.clear();
    server().metrics.clear();
  }
  return text_of_error(TRITONBACKEND_Initialize(nullptr));
}

// Makes a function fail from now on; an empty name ends this.
void triton_fail(const char* function) {
  std::lock_guard lock(server().mutex);
  server().failing = function;
}

// Loads a model from its folder. Returns nullptr and sets `message` if that fails.
TRITONBACKEND_Model* triton_load(const char* config, const char* folder, char** message) {
  auto* model = new TRITONBACKEND_Model{config, folder};
  *message = text_of_error(TRITONBACKEND_ModelInitialize(model));
  if (*message) {
    delete model;
    return nullptr;
  }
  model->instance = new TRITONBACKEND_ModelInstance{model};
  *message = text_of_error(TRITONBACKEND_ModelInstanceInitialize(model->instance));
  return model;
}

// Unloads a model, even while requests are in flight.
void triton_unload(TRITONBACKEND_Model* model) {
  free(text_of_error(TRITONBACKEND_ModelInstanceFinalize(model->instance)));
  free(text_of_error(TRITONBACKEND_ModelFinalize(model)));
  delete model->instance;
  delete model;
}

// Executes requests in one call. Stores for each the client's view of the response, and the request, which is valid for
// `triton_cancel` until it is answered. Returns an error message, or nullptr.
char* triton_execute(TRITONBACKEND_Model* model, const char* json, size_t json_size, const char* data, size_t size,
                     void** answers, TRITONBACKEND_Request** requests) {
  try {
    Json parsed = Json::parse({json, json_size});
    const auto& items = parsed.array("requests");
    std::vector<TRITONBACKEND_Request*> made;
    for (size_t i = 0; i < items.size(); i++) {
      made.push_back(read_request(items[i], {data, size}).release());
      answers[i] = new std::shared_ptr<Answer>(made[i]->answer);
      requests[i] = made[i];
    }
    return text_of_error(TRITONBACKEND_ModelInstanceExecute(model->instance, made.data(), uint32_t(made.size())));
  } catch (const std::exception& error) {
    return strdup(error.what());
  }
}

void triton_cancel(TRITONBACKEND_Request* request) { request->cancelled = true; }

// Waits for the response and, if `released` is set, until the backend has released the request. Returns 0 on timeout.
int triton_wait(void* answer, double seconds, int released) {
  Answer& found = **static_cast<std::shared_ptr<Answer>*>(answer);
  std::unique_lock lock(found.mutex);
  return found.changed.wait_for(lock, std::chrono::duration<double>(seconds),
                                [&] { return found.responses && (found.released || !released); });
}

char* triton_answer(void* answer) {
  Answer& found = **static_cast<std::shared_ptr<Answer>*>(answer);
  std::lock_guard lock(found.mutex);
  std::string text = "{\"responses\":" + std::to_string(found.responses) + ",\"error\":";
  if (found.error) {
    text += "[" + std::to_string(found.error->code) + ",";
    jigsaw::append_json(text, found.error->message);
    text += ']';
  } else {
    text += "null";
  }
  text += ",\"outputs\":[";
  for (const TRITONBACKEND_Output& output : found.outputs) {
    if (text.back() != '[') text += ',';
    text += "{\"name\":";
    jigsaw::append_json(text, output.name);
    text += std::string(",\"dtype\":\"") + jigsaw::name_of(output.type) +
            "\",\"shape\":" + jigsaw::text_of(output.shape) + ",\"size\":" + std::to_string(output.size) + "}";
  }
  return strdup((text + "]}").c_str());
}

const char* triton_answer_data(void* answer, size_t output) {
  return (**static_cast<std::shared_ptr<Answer>*>(answer)).outputs[output].data.get();
}

void triton_answer_free(void* answer) { delete static_cast<std::shared_ptr<Answer>*>(answer); }

// Returns as JSON: the numbers of objects that exist, the logs, the threads that have freed responses, and the metrics.
char* triton_state() {
  Server& s = server();
  std::lock_guard lock(s.mutex);
  std::string text = "{\"errors\":" + std::to_string(s.errors) + ",\"messages\":" + std::to_string(s.messages) +
                     ",\"parameters\":" + std::to_string(s.parameters) +
                     ",\"arguments\":" + std::to_string(s.arguments) + ",\"requests\":" + std::to_string(s.requests) +
                     ",\"responses\":" + std::to_string(s.responses) + ",\"logs\":[";
  for (const std::string& line : s.logs) {
    if (text.back() != '[') text += ',';
    jigsaw::append_json(text, line);
  }
  text += "],\"freed_by\":[";
  for (const std::string& thread : s.freed_by) {
    if (text.back() != '[') text += ',';
    jigsaw::append_json(text, thread);
  }
  text += "],\"metrics\":{";
  for (const auto& [name, value] : s.metrics) {
    if (text.back() != '{') text += ',';
    jigsaw::append_json(text, name);
    text += ":" + std::to_string(value);
  }
  return strdup((text + "}}").c_str());
}

// Stores statistics of a model: [succeeded requests, failed requests, batches, items of all batches].
void triton_statistics(TRITONBACKEND_Model* model, int64_t* counts) {
  counts[0] = model->succeeded;
  counts[1] = model->failed;
  counts[2] = model->batches;
  counts[3] = model->batch_items;
}

}  // extern "C"
