#include "onnx/library.h"

#include <dlfcn.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <mutex>
#include <string_view>
#include <vector>

namespace jigsaw::onnx {
namespace {

constexpr std::string_view kFileName = "libonnxruntime.so";
constexpr const char* kInstall = "install the Python package onnxruntime 1.20 or later, or onnxruntime-gpu for GPUs";
constexpr size_t kLongestText = 500;
constexpr const char* kCudaProvider = "CUDAExecutionProvider";

// Returns the libraries in a folder. Their names end with the release: libonnxruntime.so.1.20.0.
std::vector<std::string> libraries_in(const std::filesystem::path& folder) {
  std::vector<std::string> found;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error))
    if (entry.path().filename().string().starts_with(kFileName)) found.push_back(entry.path().string());
  std::sort(found.begin(), found.end());
  return found;
}

}  // namespace

std::string find_library(const std::string& folders) {
  std::error_code error;
  std::vector<std::string> old;
  for (size_t begin = 0; begin < folders.size();) {
    size_t end = std::min(folders.find(':', begin), folders.size());
    std::filesystem::path folder = folders.substr(begin, end - begin);
    folder = folder / "onnxruntime" / "capi";
    if (auto found = libraries_in(folder); !found.empty()) return found.back();
    if (std::filesystem::is_directory(folder, error)) old.push_back(folder.string());
    begin = end + 1;
  }
  if (!old.empty())
    throw std::runtime_error("the package onnxruntime in " + old.front() + " is too old: it has no " +
                             std::string(kFileName) + "; " + kInstall);
  throw std::runtime_error("ONNX Runtime was not found in " + (folders.empty() ? "any folder" : folders) + "; " +
                           kInstall);
}

std::string shortened(const std::string& text) {
  return text.size() <= kLongestText ? text : text.substr(0, kLongestText) + "...";
}

const Library& Library::load(const std::string& path) {
  static std::mutex mutex;
  static auto* loaded = new std::map<std::string, std::unique_ptr<Library>>;
  std::lock_guard lock(mutex);
  if (auto found = loaded->find(path); found != loaded->end()) return *found->second;
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!handle) throw std::runtime_error(std::string("ONNX Runtime cannot be loaded: ") + dlerror() + "; " + kInstall);
  auto* base = reinterpret_cast<const ApiBase* (*)()>(dlsym(handle, "OrtGetApiBase"));
  if (!base) throw std::runtime_error(path + " is not ONNX Runtime; " + kInstall);
  std::string release = base()->release();
  Table table = base()->api(kApiVersion);
  if (!table) throw std::runtime_error(path + " is ONNX Runtime " + release + ", which is too old; " + kInstall);
  auto& made = (*loaded)[path];
  made.reset(new Library(table, std::move(release)));
  return *made;
}

Library::Library(Table table, std::string release) : api_(table), release_(std::move(release)) {
  check(api_.create_env(kLogWarnings, "jigsaw", &env_));
  check(api_.default_allocator(&allocator_));
  check(api_.create_cpu_memory(kArenaAllocator, kDefaultMemory, &cpu_memory_));
}

bool Library::has_cuda() const {
  char** names = nullptr;
  int count = 0;
  check(api_.providers(&names, &count));
  bool found =
      std::any_of(names, names + count, [](const char* name) { return std::string_view(name) == kCudaProvider; });
  check(api_.release_providers(names, count));
  return found;
}

void Library::check(OrtStatus* status) const {
  if (!status) return;
  std::string text = api_.message(status);
  api_.release_status(status);
  throw std::runtime_error(shortened(text));
}

}  // namespace jigsaw::onnx
