#include "testing/client.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "core/json.h"

namespace jigsaw {
namespace {

constexpr const char* kBlames[] = {"request", "model", "worker", "cancelled"};

}  // namespace

Client::Client(const FrontSpec& spec, std::string_view text, std::string_view data) {
  Json json = Json::parse(text);
  // Allocate exactly the size of the inputs, so that AddressSanitizer detects reads beyond their end.
  size_t at = 0;
  input_data_ = std::make_unique<char[]>(data.size());
  if (!data.empty()) memcpy(input_data_.get(), data.data(), data.size());
  for (const Json& item : json.at("inputs", "request").array("inputs")) {
    Value value;
    value.type = data_type(item.at("dtype", "input").string("dtype"));
    for (const Json& dim : item.at("shape", "input").array("shape")) value.shape.push_back(dim.integer("shape"));
    value.size = size_t(item.at("size", "input").integer("size"));
    if (value.size > data.size() - at) throw FormatError("the inputs are longer than their data");
    value.data = input_data_.get() + at;
    at += value.size;
    inputs_.push_back(std::move(value));
  }
  if (const Json* id = json.find("id")) id_ = id->string("id");
  if (const Json* time = json.find("arrival")) options_.arrival = Time(time->integer("arrival"));
  if (const Json* time = json.find("deadline")) options_.deadline = Time(time->integer("deadline"));
  if (const Json* timeout = json.find("timeout_us")) options_.timeout_us = uint64_t(timeout->integer("timeout_us"));
  if (const Json* trace = json.find("traceparent")) options_.trace.parent = trace->string("traceparent");
  if (const Json* trace = json.find("tracestate")) options_.trace.state = trace->string("tracestate");
  if (const Json* priority = json.find("priority")) options_.priority = int(priority->integer("priority"));
  if (const Json* output = json.find("refuse_output")) refuse_output_ = output->integer("refuse_output");
  if (const Json* wanted = json.find("wanted"))
    for (const Json& name : wanted->array("wanted")) {
      size_t output = 0;
      while (output < spec.outputs.size() && spec.outputs[output].name != name.string("wanted")) output++;
      if (output == spec.outputs.size()) throw FormatError("unknown output " + name.string("wanted"));
      options_.wanted.push_back(output);
    }
  std::sort(options_.wanted.begin(), options_.wanted.end());
}

void Client::submit(Front& front) { front.submit(this, inputs_, options_); }

bool Client::wait(double seconds) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, std::chrono::duration<double>(seconds), [this] { return released_; });
}

std::string Client::outcome() const {
  std::lock_guard lock(mutex_);
  std::string text = "{\"failure\":";
  if (failure_) {
    text += std::string("{\"blame\":\"") + kBlames[size_t(failure_->blame)] + "\",\"message\":";
    append_json(text, failure_->message);
    text += '}';
  } else {
    text += "null";
  }
  text += ",\"outputs\":[";
  for (const Output& output : outputs_) {
    if (text.back() != '[') text += ',';
    text += "{\"index\":" + std::to_string(output.index) + ",\"dtype\":\"" + name_of(output.type) +
            "\",\"shape\":" + text_of(output.shape) + ",\"size\":" + std::to_string(output.size) + "}";
  }
  text += "],\"responses\":" + std::to_string(responses_) + ",\"items\":" + std::to_string(timing_.items) +
          ",\"arrival\":" + std::to_string(timing_.arrival) + ",\"sent\":" + std::to_string(timing_.first_sent) +
          ",\"received\":" + std::to_string(timing_.last_received) + "}";
  return text;
}

void Client::drop() {
  std::unique_lock lock(mutex_);
  dropped_ = true;
  if (!released_) return;
  lock.unlock();
  delete this;
}

char* Client::allocate(size_t output, DataType type, const Shape& shape, size_t size) {
  std::lock_guard lock(mutex_);
  if (int64_t(output) == refuse_output_) throw std::runtime_error("there is no memory for the output");
  outputs_.push_back({output, type, shape, size, std::make_unique<char[]>(size)});
  return outputs_.back().data.get();
}

void Client::respond(const Failure* failure, const Timing& timing) {
  std::lock_guard lock(mutex_);
  responses_++;
  if (failure) failure_ = std::make_unique<Failure>(*failure);
  timing_ = timing;
}

void Client::release() {
  std::unique_lock lock(mutex_);
  released_ = true;
  // Free the inputs, so that AddressSanitizer detects later reads.
  input_data_.reset();
  changed_.notify_all();
  if (!dropped_) return;
  lock.unlock();
  delete this;
}

}  // namespace jigsaw
