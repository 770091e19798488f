#include "onnx/session.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <utility>

namespace jigsaw::onnx {
namespace {

// Alignment of the tensors that the model reads. Requests may hold theirs at any address.
constexpr size_t kAlignment = 16;

constexpr std::array<std::pair<ElementType, DataType>, 14> kTypes = {{{kBool, DataType::kBool},
                                                                      {kUint8, DataType::kUint8},
                                                                      {kUint16, DataType::kUint16},
                                                                      {kUint32, DataType::kUint32},
                                                                      {kUint64, DataType::kUint64},
                                                                      {kInt8, DataType::kInt8},
                                                                      {kInt16, DataType::kInt16},
                                                                      {kInt32, DataType::kInt32},
                                                                      {kInt64, DataType::kInt64},
                                                                      {kFloat16, DataType::kFp16},
                                                                      {kFloat, DataType::kFp32},
                                                                      {kDouble, DataType::kFp64},
                                                                      {kString, DataType::kBytes},
                                                                      {kBfloat16, DataType::kBf16}}};

ElementType element_of(DataType type) {
  for (const auto& [element, found] : kTypes)
    if (found == type) return element;
  return kUndefined;
}

DataType type_of(int element) {
  for (const auto& [found, type] : kTypes)
    if (found == element) return type;
  return DataType::kInvalid;
}

// Returns an owner of an object of the library, which calls the object's function to release it.
template <typename Type, typename Release>
std::shared_ptr<Type> owned(Type* object, const Release& release) {
  return {object, [&release](Type* freed) { release(freed); }};
}

Shape shape_of(const Library& library, const OrtTensorTypeAndShapeInfo* info) {
  size_t rank = 0;
  library.check(library.api().rank(info, &rank));
  Shape shape(rank);
  library.check(library.api().dimensions(info, shape.data(), rank));
  return shape;
}

// Makes a session run on the first GPU that the process can see.
void use_gpu(const Library& library, OrtSessionOptions* options) {
  const Api& api = library.api();
  OrtCUDAProviderOptionsV2* cuda = nullptr;
  try {
    library.check(api.create_cuda_options(&cuda));
    auto owner = owned(cuda, api.release_cuda_options);
    library.check(api.use_cuda(options, cuda));
  } catch (const std::exception& error) {
    throw std::runtime_error("ONNX Runtime " + library.release() + " cannot use the GPU: " + error.what() +
                             "; install the CUDA and cuDNN libraries that this onnxruntime-gpu needs where servers "
                             "find them (LD_LIBRARY_PATH), or onnxruntime in its place to run on the processor");
  }
}

}  // namespace

Session::Session(const Library& library, const std::string& path, const Execution& execution) : library_(library) {
  const Api& api = library.api();
  OrtSessionOptions* options = nullptr;
  library.check(api.create_session_options(&options));
  auto owner = owned(options, api.release_session_options);
  library.check(api.set_intra_op_threads(options, execution.threads));
  library.check(api.set_inter_op_threads(options, 1));
  // Threads that spin between runs would take CPU time from the other models of the host.
  library.check(api.set_session_config(options, "session.intra_op.allow_spinning", "0"));
  if (execution.gpu) use_gpu(library, options);
  OrtSession* session = nullptr;
  try {
    library.check(api.create_session(library.env(), path.c_str(), options, &session));
  } catch (const std::exception& error) {
    throw std::runtime_error("ONNX Runtime " + library.release() + " cannot load " + path + ": " + error.what() +
                             "; export the model again, or install a newer onnxruntime if it lacks an operator");
  }
  session_ = owned(session, api.release_session);
  inputs_ = declared(api.input_count, api.input_name, api.input_type);
  for (Declared& input : declared(api.default_count, api.default_name, api.default_type)) {
    input.optional = true;
    inputs_.push_back(std::move(input));
  }
  outputs_ = declared(api.output_count, api.output_name, api.output_type);
}

template <typename Count, typename Name, typename Type>
std::vector<Declared> Session::declared(const Count& count_of, const Name& name_of, const Type& type_info_of) const {
  const Api& api = library_.api();
  size_t count = 0;
  library_.check(count_of(session_.get(), &count));
  std::vector<Declared> found;
  for (size_t i = 0; i < count; i++) {
    char* name = nullptr;
    library_.check(name_of(session_.get(), i, library_.allocator(), &name));
    Declared declared;
    declared.name = name;
    library_.check(api.free(library_.allocator(), name));
    OrtTypeInfo* type = nullptr;
    library_.check(type_info_of(session_.get(), i, &type));
    auto owner = owned(type, api.release_type);
    const OrtTensorTypeAndShapeInfo* info = nullptr;
    library_.check(api.tensor_info(type, &info));
    if (info) {  // Otherwise it is a sequence or a map.
      int element = kUndefined;
      library_.check(api.element_type(info, &element));
      declared.type = type_of(element);
      declared.shape = shape_of(library_, info);
    }
    found.push_back(std::move(declared));
  }
  return found;
}

std::vector<Value> Session::run(const std::vector<std::string>& input_names, const std::vector<Value>& inputs,
                                const std::vector<std::string>& output_names) const {
  std::vector<Handle> tensors;
  std::vector<const OrtValue*> given;
  std::vector<const char*> given_names, made_names;
  for (size_t i = 0; i < inputs.size(); i++) {
    tensors.push_back(tensor(inputs[i]));
    given.push_back(tensors.back().get());
    given_names.push_back(input_names[i].c_str());
  }
  for (const std::string& name : output_names) made_names.push_back(name.c_str());
  std::vector<OrtValue*> made(output_names.size());
  OrtStatus* status = library_.api().run(session_.get(), nullptr, given_names.data(), given.data(), given.size(),
                                         made_names.data(), made_names.size(), made.data());
  std::vector<Handle> outputs;
  for (OrtValue* output : made) outputs.push_back(owned(output, library_.api().release_value));
  library_.check(status);
  std::vector<Value> values;
  for (Handle& output : outputs) values.push_back(value(std::move(output)));
  return values;
}

Session::Handle Session::tensor(const Value& value) const {
  if (value.type == DataType::kBytes) return strings(value);
  const Api& api = library_.api();
  OrtValue* made = nullptr;
  if (value.size && reinterpret_cast<uintptr_t>(value.data) % kAlignment == 0) {
    library_.check(api.wrap_tensor(library_.cpu_memory(), const_cast<char*>(value.data), value.size, value.shape.data(),
                                   value.shape.size(), element_of(value.type), &made));
    return owned(made, api.release_value);
  }
  library_.check(
      api.create_tensor(library_.allocator(), value.shape.data(), value.shape.size(), element_of(value.type), &made));
  Handle tensor = owned(made, api.release_value);
  void* data = nullptr;
  library_.check(api.tensor_data(made, &data));
  if (value.size) memcpy(data, value.data, value.size);
  return tensor;
}

Session::Handle Session::strings(const Value& value) const {
  const Api& api = library_.api();
  std::string_view data(value.data, value.size);
  std::vector<size_t> offsets = bytes_offsets(data, element_count(value.shape).value_or(0));
  OrtValue* made = nullptr;
  library_.check(api.create_tensor(library_.allocator(), value.shape.data(), value.shape.size(), kString, &made));
  Handle tensor = owned(made, api.release_value);
  for (size_t i = 0; i + 1 < offsets.size(); i++) {
    std::string_view element = data.substr(offsets[i], offsets[i + 1] - offsets[i]).substr(sizeof(uint32_t));
    char* buffer = nullptr;
    library_.check(api.string_buffer(made, i, element.size(), &buffer));
    if (!element.empty()) memcpy(buffer, element.data(), element.size());
  }
  return tensor;
}

Value Session::value(Handle tensor) const {
  const Api& api = library_.api();
  int is_tensor = 0;
  library_.check(api.is_tensor(tensor.get(), &is_tensor));
  if (!is_tensor) throw std::runtime_error("an output is a sequence or a map; only tensors can be returned");
  OrtTensorTypeAndShapeInfo* info = nullptr;
  library_.check(api.tensor_info_of(tensor.get(), &info));
  auto owner = owned(info, api.release_tensor_info);
  int element = kUndefined;
  library_.check(api.element_type(info, &element));
  Value value;
  value.type = type_of(element);
  value.shape = shape_of(library_, info);
  auto count = size_t(element_count(value.shape).value_or(0));
  if (value.type != DataType::kBytes) {
    void* data = nullptr;
    library_.check(api.tensor_data(tensor.get(), &data));
    value.size = count * element_size(value.type);
    value.owner = std::shared_ptr<char[]>(std::move(tensor), static_cast<char*>(data));
    value.data = value.owner.get();
    return value;
  }
  size_t content = 0;
  library_.check(api.strings_size(tensor.get(), &content));
  std::string text(content, '\0');
  std::vector<size_t> starts(count);
  library_.check(api.strings_content(tensor.get(), text.data(), content, starts.data(), count));
  starts.push_back(content);
  value.size = content + count * sizeof(uint32_t);
  value.owner = std::shared_ptr<char[]>(new char[std::max<size_t>(value.size, 1)]);
  value.data = value.owner.get();
  char* to = value.owner.get();
  for (size_t i = 0; i < count; i++) {
    auto size = uint32_t(starts[i + 1] - starts[i]);
    memcpy(to, &size, sizeof size);
    memcpy(to + sizeof size, text.data() + starts[i], size);
    to += sizeof size + size;
  }
  return value;
}

}  // namespace jigsaw::onnx
