// Log and metrics of the server.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/host.h"
#include "triton/abi.h"

namespace jigsaw {

// Program that the core runs in: the server that has loaded the backend.
class ServerHost : public Host {
 public:
  void log(LogLevel level, const std::string& text) override;
  std::unique_ptr<Metric> metric(MetricKind kind, const std::string& name, const std::string& help,
                                 const Labels& labels, const std::vector<double>& buckets) override;

 private:
  std::map<std::string, TRITONSERVER_MetricFamily*> families_;
};

}  // namespace jigsaw
