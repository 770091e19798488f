// The outputs of an answer that a connection receives: their places in memory, and their way to the jobs.
#include <algorithm>
#include <charconv>
#include <cstring>
#include <span>

#include "core/connection.h"
#include "core/task.h"

namespace jigsaw {
namespace {

std::span<const int64_t> item_of(const Shape& shape) { return std::span(shape).subspan(1); }

}  // namespace

void Connection::place_outputs(const std::vector<AnswerOutput>& outputs, std::vector<iovec>& places) {
  const TaskSpec& spec = call.task->spec();
  tokens_.assign(size_t(call.tokens), {});
  rows_.assign(spec.outputs.size(), {});
  std::vector<bool> seen(spec.outputs.size(), false);
  for (const AnswerOutput& output : outputs) {
    auto index = size_t(std::find_if(spec.outputs.begin(), spec.outputs.end(),
                                     [&](const OutputSpec& declared) { return declared.name == output.name; }) -
                        spec.outputs.begin());
    if (index < spec.outputs.size()) {
      if (seen[index]) throw FormatError("the answer contains output " + output.name + " twice");
      seen[index] = true;
      const char* from = nullptr;
      if (output.placed) {
        const RegionSpan& span = placed_outputs_[index];
        size_t bytes = size_t(*element_count(output.shape)) * element_size(output.type);
        if (!span.size || bytes > span.size)
          throw FormatError("output " + output.name + " does not fit into its part of shared memory");
        from = region_.data() + span.offset;
      }
      size_t before = places.size();
      try {
        place_output(output, index, from, places);
      } catch (const AnswerError& error) {
        // Read on: the tokens at the end may show that this is the answer to another call, which is the worse error.
        if (!output_error_) output_error_ = error;
        places.resize(before);
        if (!from) receive_extra(output, places);
      }
      continue;
    }
    if (output.placed) throw FormatError("output " + output.name + " has no values in the answer");
    std::vector<int64_t>* numbers = output.type == DataType::kInt64 ? numbers_of(output.name) : nullptr;
    if (numbers && numbers->empty()) {
      numbers->resize(output.size / sizeof(int64_t));
      places.push_back({numbers->data(), output.size});
    } else if (spec.step && output.name == kAnsweredTensor && output.size == 1) {
      places.push_back({&answered_flag_, 1});
    } else {
      receive_extra(output, places);
    }
  }
  for (size_t o = 0; o < seen.size() && missing_output_.empty(); o++)
    if (!seen[o]) missing_output_ = spec.outputs[o].name;
}

std::vector<int64_t>* Connection::numbers_of(std::string_view name) {
  if (name.starts_with(kTokenTensor)) {
    size_t number = 0;
    if (name.size() > kTokenTensor.size() + 1) {
      const char *digits = name.data() + kTokenTensor.size() + 1, *end = name.data() + name.size();
      // A name that does not end in a number is not a token.
      if (std::from_chars(digits, end, number).ec != std::errc()) return nullptr;
    }
    return number < tokens_.size() ? &tokens_[number] : nullptr;
  }
  if (!call.pads || !name.starts_with(kRowsPrefix)) return nullptr;
  const std::vector<OutputSpec>& outputs = call.task->spec().outputs;
  auto counted = std::ranges::find(outputs, name.substr(kRowsPrefix.size()), &OutputSpec::name);
  return counted != outputs.end() ? &rows_[size_t(counted - outputs.begin())] : nullptr;
}

void Connection::receive_extra(const AnswerOutput& output, std::vector<iovec>& places) {
  Value value;
  value.type = output.type;
  value.shape = output.shape;
  value.size = output.size;
  value.owner = std::shared_ptr<char[]>(new char[std::max<size_t>(output.size, 1)]);
  value.data = value.owner.get();
  places.push_back({value.owner.get(), output.size});
  extra_outputs_.emplace_back(output.name, std::move(value));
}

void Connection::place_output(const AnswerOutput& output, size_t index, const char* from, std::vector<iovec>& places) {
  const OutputSpec& declared = call.task->spec().outputs[index];
  if (output.type != declared.type)
    throw AnswerError(Blame::kModel, "output " + output.name + " is of type " + name_of(output.type) + " where " +
                                         name_of(declared.type) + " was declared");
  Shape expected = stack_of(call.items, declared.shape);
  bool fits = std::equal(expected.begin(), expected.end(), output.shape.begin(), output.shape.end(),
                         [](int64_t wanted, int64_t found) { return wanted < 0 || wanted == found; });
  if (!fits)
    throw AnswerError(Blame::kModel, "output " + output.name + " has shape " + text_of(output.shape) + " where " +
                                         text_of(expected) + " was declared");
  auto item = item_of(output.shape);
  Shape item_shape(item.begin(), item.end());
  if (declared.fixed() && !declared.yields) {
    size_t item_size = size_t(*element_count(item)) * element_size(declared.type);
    for (const Piece& piece : call.pieces) {
      char* to = piece.job->output_memory(call.task->spec(), index, item_shape, piece.start);
      size_t size = item_size * size_t(piece.size());
      if (from) {
        memcpy(to, from, size);
        from += size;
      } else {
        places.push_back({to, size});
      }
    }
    return;
  }
  size_t size = from ? size_t(*element_count(output.shape)) * element_size(output.type) : output.size;
  Received received{output.name, std::move(item_shape), nullptr, size, index, {}};
  received.data = std::shared_ptr<char[]>(new char[std::max<size_t>(size, 1)]);
  if (from)
    memcpy(received.data.get(), from, size);
  else
    places.push_back({received.data.get(), size});
  received_.push_back(std::move(received));
}

bool Connection::tokens_match() const {
  return std::all_of(tokens_.begin(), tokens_.end(), [this](const std::vector<int64_t>& tokens) {
    return int64_t(tokens.size()) == call.items &&
           std::all_of(tokens.begin(), tokens.end(), [this](int64_t token) { return token == int64_t(call.number); });
  });
}

void Connection::check_outputs() {
  if (output_error_) throw *output_error_;
  // A step that answers the whole request may omit its own outputs.
  if (!missing_output_.empty() && !answered_flag_)
    throw AnswerError(Blame::kModel, "output " + missing_output_ + " is missing");
  for (Received& received : received_) {
    const OutputSpec& declared = call.task->spec().outputs[received.output];
    if (declared.type == DataType::kBytes) {
      try {
        received.offsets =
            bytes_offsets({received.data.get(), received.size}, *element_count(received.shape) * call.items);
      } catch (const FormatError& error) {
        throw AnswerError(Blame::kModel, "output " + received.name + ": " + error.what());
      }
    }
    if (!call.pads || !declared.yields) continue;
    const std::vector<int64_t>& rows = rows_[received.output];
    int64_t most = received.shape[0];
    if (int64_t(rows.size()) != call.items ||
        std::any_of(rows.begin(), rows.end(), [most](int64_t count) { return count < 0 || count > most; }))
      throw AnswerError(Blame::kModel, "output " + received.name + " has no valid number of rows for each item in " +
                                           std::string(kRowsPrefix) + received.name);
  }
}

void Connection::deliver() {
  check_outputs();
  for (const Received& received : received_) {
    auto per_item = size_t(*element_count(received.shape));
    const std::vector<size_t>& offsets = received.offsets;
    if (call.pads && call.task->spec().outputs[received.output].yields) {
      deliver_rows(received);
      continue;
    }
    int64_t at = 0;
    for (const Piece& piece : call.pieces) {
      size_t begin, end;
      if (!offsets.empty()) {
        begin = offsets[size_t(at) * per_item];
        end = offsets[size_t(at + piece.size()) * per_item];
      } else {
        size_t item = received.size / size_t(call.items);
        begin = size_t(at) * item;
        end = size_t(at + piece.size()) * item;
      }
      piece.job->add_chunk(received.output, {piece.start, piece.stop, received.shape, received.data,
                                             received.data.get() + begin, end - begin});
      at += piece.size();
    }
  }
  received_.clear();
}

// Passes on the rows of each item without their padding to the largest number of rows.
void Connection::deliver_rows(const Received& received) {
  const std::vector<int64_t>& rows = rows_[received.output];
  const std::vector<size_t>& offsets = received.offsets;
  int64_t most = received.shape[0];
  auto elements = size_t(*element_count(received.shape));
  size_t per_row = most ? elements / size_t(most) : 0;
  int64_t at = 0;
  for (const Piece& piece : call.pieces) {
    for (int64_t item = piece.start; item < piece.stop; item++, at++) {
      int64_t count = rows[size_t(at)];
      size_t first = size_t(at) * elements, last = first + size_t(count) * per_row;
      size_t begin = first, end = last;
      if (!offsets.empty()) {
        begin = offsets[first];
        end = offsets[last];
      } else {
        size_t element = element_size(call.task->spec().outputs[received.output].type);
        begin *= element;
        end *= element;
      }
      Shape shape = received.shape;
      shape[0] = count;
      piece.job->add_chunk(received.output,
                           {item, item + 1, std::move(shape), received.data, received.data.get() + begin, end - begin});
    }
  }
}

bool Connection::answered_early() const { return answered_flag_ != 0; }

std::vector<std::pair<std::string, Value>> Connection::early_outputs() const {
  std::vector<std::pair<std::string, Value>> found;
  for (const auto& [name, value] : extra_outputs_)
    if (name.starts_with(kAnswerPrefix)) found.emplace_back(name.substr(kAnswerPrefix.size()), value);
  return found;
}

}  // namespace jigsaw
