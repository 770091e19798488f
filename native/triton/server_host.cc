#include "triton/server_host.h"

#include "triton/calls.h"

namespace jigsaw {
namespace {

// A series of the server. Thread-safe, as the server's functions are.
class TritonMetric : public Metric {
 public:
  explicit TritonMetric(TRITONSERVER_Metric* metric) : metric_(metric) {}
  ~TritonMetric() override { log_failure(TRITONSERVER_MetricDelete(metric_)); }
  TritonMetric(const TritonMetric&) = delete;
  TritonMetric& operator=(const TritonMetric&) = delete;
  void add(double value) override { log_failure(TRITONSERVER_MetricIncrement(metric_, value)); }
  void set(double value) override { log_failure(TRITONSERVER_MetricSet(metric_, value)); }
  void observe(double value) override { log_failure(TRITONSERVER_MetricObserve(metric_, value)); }

 private:
  TRITONSERVER_Metric* metric_;
};

}  // namespace

void ServerHost::log(LogLevel level, const std::string& text) {
  constexpr TRITONSERVER_LogLevel kLevels[] = {TRITONSERVER_LOG_INFO, TRITONSERVER_LOG_WARN, TRITONSERVER_LOG_ERROR};
  log_message(kLevels[size_t(level)], text);
}

std::unique_ptr<Metric> ServerHost::metric(MetricKind kind, const std::string& name, const std::string& help,
                                           const Labels& labels, const std::vector<double>& buckets) {
  constexpr TRITONSERVER_MetricKind kKinds[] = {TRITONSERVER_METRIC_KIND_COUNTER, TRITONSERVER_METRIC_KIND_GAUGE,
                                                TRITONSERVER_METRIC_KIND_HISTOGRAM};
  auto& family = families_[name];
  if (!family) check(TRITONSERVER_MetricFamilyNew(&family, kKinds[size_t(kind)], name.c_str(), help.c_str()));
  std::vector<const TRITONSERVER_Parameter*> parameters;
  for (const auto& [key, value] : labels)
    parameters.push_back(TRITONSERVER_ParameterNew(key.c_str(), TRITONSERVER_PARAMETER_STRING, value.c_str()));
  TRITONSERVER_MetricArgs* args = nullptr;
  if (kind == MetricKind::kHistogram) {
    check(TRITONSERVER_MetricArgsNew(&args));
    check(TRITONSERVER_MetricArgsSetHistogram(args, buckets.data(), buckets.size()));
  }
  TRITONSERVER_Metric* metric = nullptr;
  TRITONSERVER_Error* error =
      args ? TRITONSERVER_MetricNewWithArgs(&metric, family, parameters.data(), parameters.size(), args)
           : TRITONSERVER_MetricNew(&metric, family, parameters.data(), parameters.size());
  for (const TRITONSERVER_Parameter* parameter : parameters)
    TRITONSERVER_ParameterDelete(const_cast<TRITONSERVER_Parameter*>(parameter));
  if (args) log_failure(TRITONSERVER_MetricArgsDelete(args));
  check(error);
  return std::make_unique<TritonMetric>(metric);
}

}  // namespace jigsaw
