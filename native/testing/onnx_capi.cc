// C interface of ONNX models for tests in Python. Errors and texts are as in capi.cc.
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/json.h"
#include "onnx/library.h"
#include "onnx/model.h"

using jigsaw::Json;
using jigsaw::Value;
using jigsaw::onnx::Answer;
using jigsaw::onnx::Model;

namespace {

char* copy(const std::string& text) { return strdup(text.c_str()); }

// The answers to the requests of a batch.
struct Answers {
  std::vector<Answer> found;
};

// Reads the inputs of a request. Each has its own copy of its data, at an odd address if `odd` is set.
std::vector<Value> read_inputs(const Json& json, std::string_view& data, bool odd) {
  std::vector<Value> inputs;
  for (const Json& item : json.array("request")) {
    Value value;
    value.type = jigsaw::data_type(item.at("dtype", "input").string("dtype"));
    for (const Json& dim : item.at("shape", "input").array("shape")) value.shape.push_back(dim.integer("shape"));
    value.size = size_t(item.at("size", "input").integer("size"));
    value.owner = std::shared_ptr<char[]>(new char[value.size + 1]);
    char* place = value.owner.get() + (odd ? 1 : 0);
    memcpy(place, data.data(), value.size);
    value.data = place;
    data.remove_prefix(value.size);
    inputs.push_back(std::move(value));
  }
  return inputs;
}

std::string json_of(const Answer& answer) {
  if (answer.failure) {
    constexpr const char* kBlames[] = {"request", "model", "worker", "cancelled"};
    std::string text = std::string("{\"blame\":\"") + kBlames[size_t(answer.failure->blame)] + "\",\"message\":";
    jigsaw::append_json(text, answer.failure->message);
    return text + "}";
  }
  std::string text = "{\"outputs\":[";
  for (const jigsaw::onnx::Output& output : answer.outputs) {
    if (text.back() != '[') text += ',';
    text += "{\"name\":";
    jigsaw::append_json(text, output.name);
    text += std::string(",\"dtype\":\"") + jigsaw::name_of(output.value.type) +
            "\",\"shape\":" + jigsaw::text_of(output.value.shape) + ",\"size\":" + std::to_string(output.value.size) +
            "}";
  }
  return text + "]}";
}

}  // namespace

extern "C" {

// Returns the path of the library, or nullptr and sets `error`.
char* jigsaw_onnx_find(const char* folders, char** error) {
  try {
    return copy(jigsaw::onnx::find_library(folders));
  } catch (const std::exception& wrong) {
    *error = copy(wrong.what());
    return nullptr;
  }
}

// Returns nullptr and sets `error` if the library or the model cannot be loaded.
Model* jigsaw_onnx_load(const char* library, const char* path, const char* spec, int threads, int gpu, char** error) {
  try {
    return new Model(jigsaw::onnx::Library::load(library), path, jigsaw::onnx::ModelSpec::parse(Json::parse(spec)),
                     {threads, gpu != 0});
  } catch (const std::exception& wrong) {
    *error = copy(wrong.what());
    return nullptr;
  }
}

void jigsaw_onnx_free(Model* model) { delete model; }

// Answers the requests of a batch, whose inputs `json` describes. May be called by several threads.
Answers* jigsaw_onnx_answer(Model* model, const char* json, const char* data, size_t size, int odd) {
  std::string_view rest(data, size);
  std::vector<std::vector<Value>> requests;
  Json parsed = Json::parse(json);
  for (const Json& request : parsed.array("requests")) requests.push_back(read_inputs(request, rest, odd != 0));
  return new Answers{model->answer(requests)};
}

char* jigsaw_onnx_answer_text(Answers* answers, size_t request) { return copy(json_of(answers->found[request])); }

const char* jigsaw_onnx_answer_data(Answers* answers, size_t request, size_t output) {
  return answers->found[request].outputs[output].value.data;
}

void jigsaw_onnx_answer_free(Answers* answers) { delete answers; }

}  // extern "C"
