// Objects of the fake server: those that it hands out to the backend, and its state.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "core/base.h"
#include "triton/abi.h"

using jigsaw::DataType;
using jigsaw::Shape;

struct TRITONSERVER_Error {
  TRITONSERVER_Error_Code code;
  std::string message;
};

struct TRITONSERVER_Message {
  std::string text;
};

struct TRITONSERVER_Parameter {
  std::string name, value;
};

struct TRITONSERVER_MetricFamily {
  TRITONSERVER_MetricKind kind;
  std::string name;
};

struct TRITONSERVER_MetricArgs {
  std::vector<double> buckets;
};

struct TRITONSERVER_Metric {
  TRITONSERVER_MetricFamily* family;
  std::string labels;
  double value = 0;
};

struct TRITONBACKEND_Input {
  std::string name;
  DataType type;
  Shape shape;
  std::vector<std::string> buffers;
  bool on_gpu = false;
};

struct TRITONBACKEND_Output {
  std::string name;
  DataType type;
  Shape shape;
  std::unique_ptr<char[]> data;
  size_t size = 0;
  bool on_gpu = false;
};

struct TRITONBACKEND_Model {
  std::string config;
  std::string folder;
  void* state = nullptr;
  TRITONBACKEND_ModelInstance* instance = nullptr;
  std::atomic<int64_t> succeeded{0}, failed{0}, batches{0}, batch_items{0};
};

struct TRITONBACKEND_ModelInstance {
  TRITONBACKEND_Model* model;
  void* state = nullptr;
};

// The response to a request as its client sees it. It outlives the request.
struct Answer {
  std::mutex mutex;
  std::condition_variable changed;
  int responses = 0;
  bool released = false;
  std::unique_ptr<TRITONSERVER_Error> error;
  std::deque<TRITONBACKEND_Output> outputs;
};

struct TRITONBACKEND_Request {
  std::shared_ptr<Answer> answer;
  std::string id;
  std::deque<TRITONBACKEND_Input> inputs;
  std::vector<std::string> outputs;
  std::vector<std::pair<std::string, int64_t>> parameters;
  uint64_t timeout_us = 0;
  std::atomic<bool> cancelled{false};
  bool output_on_gpu = false;
};

struct TRITONBACKEND_Response {
  std::shared_ptr<Answer> answer;
  std::deque<TRITONBACKEND_Output> outputs;
  bool on_gpu = false;
};

namespace jigsaw::testing {

struct Server {
  std::mutex mutex;
  uint32_t major = JIGSAW_BACKEND_API_MAJOR, minor = JIGSAW_BACKEND_API_MINOR;
  std::string failing;  // Name of the function that fails now; empty for none.
  std::vector<std::string> logs;
  std::map<std::string, double> metrics;  // Values by name and labels.
  std::list<TRITONSERVER_Metric> series;
  std::deque<TRITONSERVER_MetricFamily> families;  // Never freed, because the backend never deletes them.
  std::set<std::string> freed_by;                  // Names of the threads that have freed responses.
  std::condition_variable changed;
  bool let_go = false;  // True if the model `held` answers.
  int holding = 0;      // Number of requests that it holds.
  std::atomic<int64_t> errors{0}, messages{0}, parameters{0}, arguments{0}, requests{0}, responses{0};
};

// Returns the server of this process.
Server& server();

}  // namespace jigsaw::testing
