#include "core/split_request.h"

#include <algorithm>
#include <cstring>
#include <string>

namespace jigsaw {

class SplitRequest::Item : public Request {
 public:
  explicit Item(SplitRequest& split_request) : parent_(split_request), outputs(split_request.spec_.outputs.size()) {}

  std::string_view id() const override { return parent_.whole_->id(); }
  const TraceContext* trace() const override { return parent_.whole_->trace(); }
  bool cancelled() const override { return parent_.whole_->cancelled(); }

  char* allocate(size_t output, DataType type, const Shape& shape, size_t size) override {
    Value& value = outputs[output];
    value.type = type;
    value.shape = shape;
    value.size = size;
    value.owner = std::shared_ptr<char[]>(new char[std::max<size_t>(size, 1)]);
    value.data = value.owner.get();
    return value.owner.get();
  }

  void respond(const Failure* failed, const Timing& when) override {
    if (failed) failure = std::make_unique<Failure>(*failed);
    timing = when;
    parent_.responded();
  }

  void release() override { parent_.released(); }

 private:
  SplitRequest& parent_;

 public:
  std::vector<Value> outputs;
  std::unique_ptr<Failure> failure;
  Timing timing;
};

SplitRequest::SplitRequest(const FrontSpec& spec, Request* whole, std::vector<size_t> wanted, size_t items)
    : spec_(spec), whole_(whole), wanted_(std::move(wanted)), unanswered_(items), unreleased_(items) {
  items_.reserve(items);
  for (size_t i = 0; i < items; i++) items_.push_back(std::make_unique<Item>(*this));
}

SplitRequest::~SplitRequest() = default;

Request* SplitRequest::item(size_t index) { return items_[index].get(); }

void SplitRequest::responded() {
  if (--unanswered_ > 0) return;
  Timing timing = items_[0]->timing;
  timing.items = int64_t(items_.size());
  std::unique_ptr<Failure> failure;
  for (auto& item : items_) {
    // It is 0 if the item was never sent.
    if (!timing.first_sent || (item->timing.first_sent && item->timing.first_sent < timing.first_sent))
      timing.first_sent = item->timing.first_sent;
    timing.last_received = std::max(timing.last_received, item->timing.last_received);
    if (item->failure && !failure) failure = std::move(item->failure);
  }
  try {
    if (!failure) failure = stack();
  } catch (const std::exception& error) {
    failure = std::make_unique<Failure>(Failure{Blame::kModel, error.what()});
  }
  whole_->respond(failure.get(), timing);
}

std::unique_ptr<Failure> SplitRequest::stack() {
  for (size_t output : wanted_) {
    size_t size = 0;
    const Shape& shape = items_[0]->outputs[output].shape;
    for (auto& item : items_) {
      const Value& value = item->outputs[output];
      if (value.shape != shape)
        return std::make_unique<Failure>(
            Failure{Blame::kRequest,
                    "output " + spec_.outputs[output].name +
                        " differs in shape between the items of the batch: " + text_of(std::span(shape).subspan(1)) +
                        ", " + text_of(std::span(value.shape).subspan(1)) + "; send them one by one"});
      size += value.size;
    }
    Shape stacked = shape;
    if (stacked.empty()) throw std::runtime_error("output " + spec_.outputs[output].name + " has no batch dimension");
    stacked[0] = int64_t(items_.size());
    char* to = whole_->allocate(output, items_[0]->outputs[output].type, stacked, size);
    for (auto& item : items_) {
      const Value& value = item->outputs[output];
      if (value.size) memcpy(to, value.data, value.size);
      to += value.size;
    }
  }
  return nullptr;
}

void SplitRequest::released() {
  if (--unreleased_ > 0) return;
  Request* whole = whole_;
  delete this;
  whole->release();
}

Value item_of(const Value& value, size_t index, size_t items, const std::vector<size_t>& offsets) {
  Value item = value;
  item.shape[0] = 1;
  if (offsets.empty()) {
    item.size = value.size / items;
    item.data = value.data + index * item.size;
  } else {
    size_t per_item = (offsets.size() - 1) / items;
    item.data = value.data + offsets[index * per_item];
    item.size = offsets[(index + 1) * per_item] - offsets[index * per_item];
  }
  return item;
}

}  // namespace jigsaw
