#include "testing/recorder.h"

#include <cstdio>
#include <stdexcept>

#include "core/json.h"

namespace jigsaw {
namespace {

constexpr const char* kLevels[] = {"info", "warning", "error"};
constexpr const char* kKinds[] = {"counter", "gauge", "histogram"};

}  // namespace

class Recorder::RecordedMetric : public Metric {
 public:
  RecordedMetric(Recorder& recorder, Series& series) : recorder_(recorder), series_(series) {}
  ~RecordedMetric() override {
    std::lock_guard lock(recorder_.mutex_);
    recorder_.series_.remove_if([this](const Series& series) { return &series == &series_; });
  }
  RecordedMetric(const RecordedMetric&) = delete;
  RecordedMetric& operator=(const RecordedMetric&) = delete;

  void add(double value) override { change(MetricKind::kCounter, value, 0); }
  void set(double value) override { change(MetricKind::kGauge, value, 0); }
  void observe(double value) override { change(MetricKind::kHistogram, value, 1); }

 private:
  void change(MetricKind kind, double value, int64_t more) {
    std::lock_guard lock(recorder_.mutex_);
    if (kind != series_.kind)
      recorder_.logs_.emplace_back(LogLevel::kError, series_.name + " is of another kind of metric");
    series_.value = kind == MetricKind::kGauge ? value : series_.value + value;
    series_.count += more;
  }

  Recorder& recorder_;
  Series& series_;
};

void Recorder::log(LogLevel level, const std::string& text) {
  std::lock_guard lock(mutex_);
  logs_.emplace_back(level, text);
}

std::unique_ptr<Metric> Recorder::metric(MetricKind kind, const std::string& name, const std::string& help,
                                         const Labels& labels, const std::vector<double>& buckets) {
  if (help.empty() || buckets.empty() == (kind == MetricKind::kHistogram))
    throw std::runtime_error("metric " + name + " cannot be made");
  std::lock_guard lock(mutex_);
  series_.push_back({kind, name, help, labels});
  return std::make_unique<RecordedMetric>(*this, series_.back());
}

std::string Recorder::json() const {
  std::lock_guard lock(mutex_);
  std::string text = "{\"logs\":[";
  for (const auto& [level, line] : logs_) {
    if (text.back() != '[') text += ',';
    text += std::string("[\"") + kLevels[size_t(level)] + "\",";
    append_json(text, line);
    text += ']';
  }
  text += "],\"metrics\":[";
  for (const Series& series : series_) {
    if (text.back() != '[') text += ',';
    text += std::string("{\"kind\":\"") + kKinds[size_t(series.kind)] + "\",\"name\":";
    append_json(text, series.name);
    text += ",\"help\":";
    append_json(text, series.help);
    char numbers[96];
    snprintf(numbers, sizeof numbers, ",\"value\":%.17g,\"count\":%lld,\"labels\":{", series.value,
             static_cast<long long>(series.count));
    text += numbers;
    for (const auto& [key, value] : series.labels) {
      if (text.back() != '{') text += ',';
      append_json(text, key);
      text += ':';
      append_json(text, value);
    }
    text += "}}";
  }
  return text + "]}";
}

}  // namespace jigsaw
