#include "onnx/model.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <set>
#include <span>
#include <utility>

namespace jigsaw::onnx {
namespace {

int64_t items_of(const Value& value) { return value.shape[0]; }

// Returns the size in bytes of an element; for BYTES, that of the length which stands before its text.
size_t least_size(DataType type) { return type == DataType::kBytes ? sizeof(uint32_t) : element_size(type); }

// Joins texts for an error text.
template <typename Texts>
std::string joined(const Texts& texts) {
  std::string all;
  for (const std::string& text : texts) all += (all.empty() ? "" : ", ") + text;
  return shortened(all);
}

// Joins values along their first dimension.
Value concatenated(std::span<const Value> values) {
  Value all;
  all.type = values[0].type;
  all.shape = values[0].shape;
  all.shape[0] = 0;
  for (const Value& value : values) {
    all.shape[0] += value.shape[0];
    all.size += value.size;
  }
  all.owner = std::shared_ptr<char[]>(new char[std::max<size_t>(all.size, 1)]);
  all.data = all.owner.get();
  size_t at = 0;
  for (const Value& value : values) {
    if (value.size) memcpy(all.owner.get() + at, value.data, value.size);
    at += value.size;
  }
  return all;
}

// Cuts a value along its first dimension. The parts share its memory.
std::vector<Value> split(const Value& value, std::span<const int64_t> counts) {
  auto inner = element_count(std::span(value.shape).subspan(1)).value_or(0);
  std::vector<size_t> offsets;
  if (value.type == DataType::kBytes) offsets = bytes_offsets({value.data, value.size}, items_of(value) * inner);
  std::vector<Value> parts;
  int64_t at = 0;
  for (int64_t count : counts) {
    auto offset = [&](int64_t item) {
      auto element = size_t(item * inner);
      return value.type == DataType::kBytes ? offsets[element] : element * element_size(value.type);
    };
    Value part = value;
    part.shape[0] = count;
    part.data = value.data + offset(at);
    part.size = offset(at + count) - offset(at);
    parts.push_back(std::move(part));
    at += count;
  }
  return parts;
}

// Pads the rows of an item, [1, its rows, ...], with zeros or empty texts.
Value padded(const Value& value, int64_t rows) {
  Value made = value;
  made.shape[1] = rows;
  auto missing = element_count(std::span(made.shape).subspan(2)).value_or(0) * (rows - value.shape[1]);
  made.size += size_t(missing) * least_size(value.type);
  made.owner = std::shared_ptr<char[]>(new char[std::max<size_t>(made.size, 1)]());
  made.data = made.owner.get();
  if (value.size) memcpy(made.owner.get(), value.data, value.size);
  return made;
}

// Returns a column of numbers, INT64 [count, 1].
Value column(const std::vector<int64_t>& numbers) {
  Value made;
  made.type = DataType::kInt64;
  made.shape = {int64_t(numbers.size()), 1};
  made.size = numbers.size() * sizeof(int64_t);
  made.owner = std::shared_ptr<char[]>(new char[std::max<size_t>(made.size, 1)]);
  made.data = made.owner.get();
  if (made.size) memcpy(made.owner.get(), numbers.data(), made.size);
  return made;
}

// Returns true if all values have the same number of items.
bool same_items(const std::vector<Value>& values) {
  return std::ranges::all_of(values, [&](const Value& v) { return items_of(v) == items_of(values[0]); });
}

bool fits(const Shape& declared, std::span<const int64_t> actual) {
  return std::ranges::equal(declared, actual, [](int64_t d, int64_t a) { return d < 0 || a < 0 || d == a; });
}

// Returns the difference of a value from its specification, or an empty text. -1 stands for any number of items.
std::string difference(const char* kind, const TensorSpec& spec, int64_t items, const Value& value) {
  if (value.type != spec.type)
    return std::string(kind) + " " + spec.name + " is of type " + name_of(value.type) + " where " + name_of(spec.type) +
           " was declared";
  Shape wanted = {items};
  wanted.insert(wanted.end(), spec.shape.begin(), spec.shape.end());
  if (fits(wanted, value.shape)) return {};
  return std::string(kind) + " " + spec.name + " has shape " + text_of(value.shape) + " where " + text_of(wanted) +
         " was declared";
}

std::set<std::string> names_of(const auto& tensors) {
  std::set<std::string> names;
  for (const auto& tensor : tensors) names.insert(tensor.name);
  return names;
}

// Checks that the model has the tensors of the specification; for inputs, also that it needs no others.
void match(const char* kind, const std::vector<TensorSpec>& wanted, const std::vector<Declared>& found, bool inputs) {
  std::set<std::string> names = names_of(wanted), has = names_of(found), needed;
  for (const Declared& tensor : found)
    if (inputs && !tensor.optional) needed.insert(tensor.name);
  if (!std::ranges::includes(has, names) || !std::ranges::includes(names, needed))
    throw std::runtime_error(std::string("the graph declares the ") + kind + "s " + joined(names) + ", but " +
                             kModelFile + " has " + joined(has) + "; declare the same names");
  for (const TensorSpec& tensor : wanted) {
    const Declared& declared = *std::ranges::find(found, tensor.name, &Declared::name);
    std::string name = std::string(kind) + " " + tensor.name;
    if (declared.type == DataType::kInvalid)
      throw std::runtime_error(name + " of " + kModelFile +
                               " is not a tensor of a type that Triton has; convert it in the model");
    if (declared.type != tensor.type)
      throw std::runtime_error("the graph declares " + name + " as " + name_of(tensor.type) + ", but it is " +
                               name_of(declared.type) + " in " + kModelFile + "; declare " + name_of(declared.type));
    // The declared shapes of outputs are only hints of whoever made the model.
    if (!inputs || declared.shape.empty()) continue;
    std::span<const int64_t> rest = std::span(declared.shape).subspan(1);
    if (!fits(tensor.shape, rest))
      throw std::runtime_error("the graph declares " + name + " with shape " + text_of(tensor.shape) +
                               ", but without its batch dimension it is " + text_of(rest) + " in " + kModelFile +
                               "; declare this shape");
  }
}

}  // namespace

ModelSpec ModelSpec::parse(const Json& json) {
  ModelSpec spec;
  auto tensors = [&json](const char* name) {
    std::vector<TensorSpec> found;
    std::string where = std::string("spec.") + name;
    for (const Json& item : json.at(name, "spec").array(where)) found.emplace_back().read(item, where);
    if (found.empty()) throw FormatError(where + " is empty");
    return found;
  };
  spec.inputs = tensors("inputs");
  spec.outputs = tensors("outputs");
  spec.stack = json.at("stack", "spec").boolean("spec.stack");
  spec.threads = int(std::clamp<int64_t>(json.at("threads", "spec").integer("spec.threads"), 1, 1024));
  spec.padded.resize(spec.outputs.size());
  for (const Json& name : json.at("pads", "spec").array("spec.pads"))
    for (size_t i = 0; i < spec.outputs.size(); i++) {
      if (spec.outputs[i].name != name.string("spec.pads")) continue;
      if (spec.outputs[i].shape.empty()) throw FormatError("spec.pads has an output without rows");
      spec.padded[i] = true;
    }
  return spec;
}

Model::Model(const Library& library, const std::string& path, ModelSpec spec, const Execution& execution)
    : spec_(std::move(spec)), session_(library, path, execution) {
  match("input", spec_.inputs, session_.inputs(), true);
  match("output", spec_.outputs, session_.outputs(), false);
  for (const TensorSpec& input : spec_.inputs) input_names_.push_back(input.name);
  for (const TensorSpec& output : spec_.outputs) output_names_.push_back(output.name);
}

std::vector<Answer> Model::answer(const std::vector<std::vector<Value>>& requests) const {
  std::vector<Answer> answers(requests.size());
  std::map<std::pair<size_t, std::vector<Shape>>, std::vector<size_t>> groups;
  for (size_t i = 0; i < requests.size(); i++) {
    if (std::string wrong = fault_of(requests[i]); !wrong.empty()) {
      answers[i].failure = {Blame::kRequest, shortened(wrong)};
      continue;
    }
    std::vector<Shape> shapes;
    for (const Value& input : requests[i]) shapes.emplace_back(input.shape.begin() + 1, input.shape.end());
    groups[{spec_.stack ? 0 : i, std::move(shapes)}].push_back(i);
  }
  for (const auto& [key, indices] : groups) {
    std::vector<const Values*> group;
    for (size_t index : indices) group.push_back(&requests[index]);
    std::vector<Answer> made;
    try {
      made = answer_joined(group);
    } catch (const std::exception& error) {  // There is no memory for a batch or its outputs.
      made.assign(group.size(), {{}, Failure{Blame::kModel, shortened(error.what())}});
    }
    for (size_t i = 0; i < indices.size(); i++) answers[indices[i]] = std::move(made[i]);
  }
  return answers;
}

// Returns what is wrong with the inputs of a request, or an empty text.
std::string Model::fault_of(const Values& inputs) const {
  for (size_t i = 0; i < inputs.size(); i++) {
    const Value& value = inputs[i];
    if (std::string wrong = difference("input", spec_.inputs[i], -1, value); !wrong.empty()) return wrong;
    std::optional<int64_t> count = element_count(value.shape);
    if (!count || (value.type != DataType::kBytes && value.size != size_t(*count) * element_size(value.type)))
      return "input " + input_names_[i] + " has " + std::to_string(value.size) + " bytes, which its shape " +
             text_of(value.shape) + " contradicts";
  }
  if (same_items(inputs)) return {};
  std::string sizes;
  for (size_t i = 0; i < inputs.size(); i++)
    sizes += (i ? ", " : "") + input_names_[i] + " has " + std::to_string(items_of(inputs[i]));
  return "inputs differ in batch size: " + sizes;
}

std::vector<Answer> Model::answer_joined(const std::vector<const Values*>& requests) const {
  std::vector<Answer> answers(requests.size());
  if (requests.size() > 1) {
    std::vector<int64_t> counts;
    for (const Values* request : requests) counts.push_back(items_of(request->front()));
    Values inputs;
    for (size_t i = 0; i < spec_.inputs.size(); i++) {
      Values parts;
      for (const Values* request : requests) parts.push_back((*request)[i]);
      inputs.push_back(concatenated(parts));
    }
    Answer all = run(inputs);
    if (!all.failure) {
      for (const Output& output : all.outputs) {
        std::vector<Value> parts = split(output.value, counts);
        for (size_t i = 0; i < parts.size(); i++) answers[i].outputs.push_back({output.name, std::move(parts[i])});
      }
      return answers;
    }
  }
  for (size_t i = 0; i < requests.size(); i++) answers[i] = answer_one(*requests[i]);
  return answers;
}

Answer Model::answer_one(const Values& inputs) const {
  bool pads = std::ranges::find(spec_.padded, true) != spec_.padded.end();
  int64_t items = items_of(inputs[0]);
  if (spec_.stack || (items == 1 && !pads)) return run(inputs);
  if (items == 0) return answer_empty(inputs);
  try {
    return answer_items(inputs);
  } catch (const FormatError& error) {
    return {{}, Failure{Blame::kRequest, error.what()}};
  }
}

// Answers a request without items.
Answer Model::answer_empty(const Values& inputs) const {
  Answer answer = run(inputs);
  for (size_t o = 0; o < spec_.padded.size() && !answer.failure; o++)
    if (spec_.padded[o]) answer.outputs.push_back({std::string(kRowsPrefix) + output_names_[o], column({})});
  return answer;
}

// Answers a request with one run for each item.
Answer Model::answer_items(const Values& inputs) const {
  auto items = size_t(items_of(inputs[0]));
  std::vector<Values> of_item(items);
  std::vector<int64_t> ones(items, 1);
  for (const Value& input : inputs)
    for (size_t i = 0; Value& part : split(input, ones)) of_item[i++].push_back(std::move(part));
  Answer all;
  std::vector<Values> parts(spec_.outputs.size());
  for (const Values& item : of_item) {
    Answer made = run(item);
    if (made.failure) return made;
    for (size_t o = 0; o < parts.size(); o++) parts[o].push_back(std::move(made.outputs[o].value));
  }
  std::vector<Output> counts;
  for (size_t o = 0; o < parts.size(); o++) {
    const std::string& name = output_names_[o];
    if (spec_.padded[o]) {
      std::vector<int64_t> rows;
      for (const Value& part : parts[o]) rows.push_back(part.shape[1]);
      int64_t most = std::ranges::max(rows);
      for (Value& part : parts[o]) part = padded(part, most);
      counts.push_back({std::string(kRowsPrefix) + name, column(rows)});
    }
    std::set<Shape> shapes;
    for (const Value& part : parts[o]) shapes.emplace(part.shape.begin() + 1, part.shape.end());
    if (shapes.size() > 1) {
      std::string text = "output " + name + " differs in shape between the items of the request: ";
      for (const Shape& shape : shapes) text += (shape == *shapes.begin() ? "" : ", ") + text_of(shape);
      return {{}, Failure{Blame::kRequest, shortened(text)}};
    }
    all.outputs.push_back({name, concatenated(parts[o])});
  }
  std::ranges::move(counts, std::back_inserter(all.outputs));
  return all;
}

// Runs the model once.
Answer Model::run(const Values& inputs) const {
  Answer answer;
  try {
    Values made = session_.run(input_names_, inputs, output_names_);
    check(made, items_of(inputs[0]));
    for (size_t o = 0; o < made.size(); o++) answer.outputs.push_back({output_names_[o], std::move(made[o])});
  } catch (const FormatError& error) {
    answer.failure = {Blame::kRequest, error.what()};
  } catch (const std::exception& error) {
    answer.failure = {Blame::kModel, shortened(error.what())};
  }
  return answer;
}

// Throws std::runtime_error if an output has another type or shape than the specification.
void Model::check(const Values& outputs, int64_t items) const {
  for (size_t o = 0; o < outputs.size(); o++)
    if (std::string wrong = difference("output", spec_.outputs[o], items, outputs[o]); !wrong.empty())
      throw std::runtime_error(wrong);
}

}  // namespace jigsaw::onnx
