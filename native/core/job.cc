#include "core/job.h"

#include <algorithm>
#include <cstring>

#include "core/flow.h"

namespace jigsaw {
namespace {

// Maximum number of items of a job. Rows without elements have no bytes, so their number needs a limit of its own.
constexpr int64_t kMaxItems = int64_t{1} << 31;

bool matches(const Shape& declared, std::span<const int64_t> shape) {
  return std::equal(declared.begin(), declared.end(), shape.begin(), shape.end(),
                    [](int64_t expected, int64_t found) { return expected < 0 || expected == found; });
}

std::unique_ptr<Failure> request_failure(std::string message) {
  return std::make_unique<Failure>(Failure{Blame::kRequest, std::move(message)});
}

// Returns the failure "inputs differ in WHAT: X has 2, Y has 3".
std::unique_ptr<Failure> mismatch(const TaskSpec& spec, const std::vector<Value>& values, const char* what,
                                  size_t axis) {
  std::string text = "task " + spec.name + ": inputs differ in " + what + ":";
  const char* comma = " ";
  for (const InputSpec& input : spec.inputs) {
    if (axis == 1 && !input.iterated) continue;
    text += comma + input.name + " has " + std::to_string(values[input.tensor].shape[axis]);
    comma = ", ";
  }
  return request_failure(std::move(text));
}

std::string differs(const std::string& output, std::span<const int64_t> one, std::span<const int64_t> other) {
  return "output " + output + " differs in shape between the items of the request: " + text_of(one) + ", " +
         text_of(other);
}

}  // namespace

std::string_view JobInput::entry(int64_t item) const {
  size_t at = size_t(item / repeat);
  if (!offsets.empty()) return {data + offsets[at], offsets[at + 1] - offsets[at]};
  return {data + at * entry_size, entry_size};
}

std::string_view JobInput::range(int64_t start, int64_t stop) const {
  if (!offsets.empty()) return {data + offsets[size_t(start)], offsets[size_t(stop)] - offsets[size_t(start)]};
  return {data + size_t(start) * entry_size, size_t(stop - start) * entry_size};
}

std::unique_ptr<Failure> Job::take_inputs(const TaskSpec& spec, const std::vector<Value>& values, bool holds) {
  int64_t batch = -1, rows = -1;
  for (const InputSpec& input : spec.inputs) {
    const Value& value = values[input.tensor];
    size_t leading = input.iterated ? 2 : 1;
    if (value.shape.size() != leading + input.shape.size() ||
        !matches(input.shape, std::span(value.shape).subspan(leading)))
      return request_failure("task " + spec.name + ": input " + input.name + " has shape " + text_of(value.shape) +
                             " where each item has " + text_of(input.shape));
    if (batch < 0) batch = value.shape[0];
    if (value.shape[0] != batch) return mismatch(spec, values, "batch size", 0);
    if (!input.iterated) continue;
    if (rows < 0) rows = value.shape[1];
    if (value.shape[1] != rows) return mismatch(spec, values, "number of rows", 1);
  }
  if (spec.mode == Mode::kRows) {
    if (rows < 0) rows = 1;
    if (!holds) rows = 0;
    leading = {batch, rows};
    items = element_count(leading).value_or(INT64_MAX);
  } else {
    leading = {batch};
    items = batch;
  }
  if (items > kMaxItems) return request_failure("task " + spec.name + ": the request has too many rows");
  outputs.resize(spec.outputs.size());
  if (items == 0) return nullptr;
  bool grouped = spec.mode == Mode::kRows;
  inputs.reserve(spec.inputs.size());
  for (const InputSpec& spec_input : spec.inputs) {
    const Value& value = values[spec_input.tensor];
    JobInput input;
    int64_t entries = spec_input.iterated ? batch * rows : batch;
    input.data = value.data;
    input.repeat = items / entries;
    input.shape.assign(value.shape.begin() + (spec_input.iterated ? 2 : 1), value.shape.end());
    if (value.type == DataType::kBytes) {
      int64_t per_entry = *element_count(input.shape);
      try {
        std::vector<size_t> all = bytes_offsets({value.data, value.size}, entries * per_entry);
        for (int64_t i = 0; i <= entries; i++) input.offsets.push_back(all[size_t(i * per_entry)]);
      } catch (const FormatError& error) {
        return request_failure("task " + spec.name + ": input " + spec_input.name + ": " + error.what());
      }
    } else {
      input.entry_size = value.size / size_t(entries);
    }
    size += value.size;
    if (grouped) group.insert(group.end(), input.shape.begin(), input.shape.end());
    inputs.push_back(std::move(input));
  }
  return nullptr;
}

char* Job::output_memory(const TaskSpec& spec, size_t output, const Shape& item, int64_t start) {
  JobOutput& to = outputs[output];
  const OutputSpec& declared = spec.outputs[output];
  if (!to.allocated) {
    Shape whole = leading;
    whole.insert(whole.end(), item.begin(), item.end());
    if (!element_count(whole)) throw AnswerError(Blame::kModel, "output " + declared.name + " is too large");
    to.item_size = size_t(*element_count(item)) * element_size(declared.type);
    try {
      to.data = flow->memory(declared.tensor, declared.type, whole, to.item_size * size_t(items), to.owner);
    } catch (const std::exception& error) {
      // This is not the worker's fault, so the call must not be retried.
      throw AnswerError(Blame::kModel, "output " + declared.name + ": " + error.what());
    }
    to.allocated = true;
    to.shape = item;
  }
  return to.data + size_t(start) * to.item_size;
}

size_t Job::chunk_bytes() const {
  size_t bytes = 0;
  for (const JobOutput& output : outputs)
    for (const Chunk& chunk : output.chunks) bytes += chunk.size;
  return bytes;
}

std::unique_ptr<Failure> Job::join_output(const TaskSpec& spec, size_t output, Value& value) {
  const OutputSpec& declared = spec.outputs[output];
  JobOutput& from = outputs[output];
  value.type = declared.type;
  value.shape = leading;
  if (from.allocated) {
    value.shape.insert(value.shape.end(), from.shape.begin(), from.shape.end());
    value.data = from.data;
    value.size = from.item_size * size_t(items);
    value.owner = std::move(from.owner);
    return nullptr;
  }
  bool flat = declared.yields && spec.mode == Mode::kRows;
  auto& chunks = from.chunks;
  std::sort(chunks.begin(), chunks.end(), [](const Chunk& a, const Chunk& b) { return a.start < b.start; });
  // If items are joined along their rows (`flat`), the first dimension may differ between items; else none may.
  Shape item;
  for (const Chunk& chunk : chunks) {
    if (&chunk == &chunks.front()) item = chunk.shape;
    bool same = std::equal(item.begin() + flat, item.end(), chunk.shape.begin() + flat, chunk.shape.end());
    if (!same) return request_failure(differs(declared.name, item, chunk.shape));
    value.size += chunk.size;
  }
  if (chunks.empty())
    for (int64_t dim : declared.shape) item.push_back(dim < 0 ? 0 : dim);
  if (flat) {
    // The rows of all items of a batch entry are concatenated; all entries must have the same number of rows.
    std::vector<int64_t> rows(size_t(leading[0]), 0);  // Number of rows of each entry.
    for (const Chunk& chunk : chunks)
      for (int64_t i = chunk.start; i < chunk.stop; i++) rows[size_t(i / leading[1])] += chunk.shape[0];
    for (int64_t count : rows)
      if (count != rows[0])
        return request_failure(differs(declared.name, std::span(&rows[0], 1), std::span(&count, 1)));
    value.shape[1] = rows.empty() ? 0 : rows[0];
    item.erase(item.begin());
  }
  value.shape.insert(value.shape.end(), item.begin(), item.end());
  if (chunks.size() == 1 && !flow->client_gets(declared.tensor)) {
    // No copy: the followers use the memory of the answer.
    value.owner = std::move(chunks[0].owner);
    value.data = chunks[0].data;
    return nullptr;
  }
  char* to = flow->memory(declared.tensor, declared.type, value.shape, value.size, value.owner);
  value.data = to;
  for (const Chunk& chunk : chunks) {
    if (chunk.size) memcpy(to, chunk.data, chunk.size);
    to += chunk.size;
  }
  return nullptr;
}

Value Job::row_counts(const CountSpec& count) {
  Value value;
  value.type = DataType::kInt64;
  value.shape = leading;
  value.shape.push_back(1);
  value.size = size_t(items) * sizeof(int64_t);
  char* to = flow->memory(count.tensor, value.type, value.shape, value.size, value.owner);
  value.data = to;
  const JobOutput& from = outputs[count.output];
  for (int64_t i = 0; i < items; i++) {
    int64_t rows = from.allocated ? from.shape[0] : 0;
    memcpy(to + size_t(i) * sizeof rows, &rows, sizeof rows);
  }
  for (const Chunk& chunk : from.chunks)
    for (int64_t i = chunk.start; i < chunk.stop; i++)
      memcpy(to + size_t(i) * sizeof(int64_t), &chunk.shape[0], sizeof(int64_t));
  return value;
}

std::unique_ptr<Failure> Job::join_outputs(const TaskSpec& spec, std::vector<Value>& values) {
  for (size_t output = 0; output < spec.outputs.size(); output++) {
    Value value;
    if (auto failure = join_output(spec, output, value)) return failure;
    values[spec.outputs[output].tensor] = std::move(value);
  }
  for (const CountSpec& count : spec.counts) values[count.tensor] = row_counts(count);
  return nullptr;
}

}  // namespace jigsaw
