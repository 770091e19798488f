#include "core/trace_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

namespace jigsaw {
namespace {

constexpr off_t kMaxFileBytes = 256 * 1024;

// Makes the folder of a file, and the folders above it.
void make_folder_of(const std::string& path) {
  std::string folder = path.substr(0, path.rfind('/'));
  if (folder.empty() || folder == path) return;
  if (mkdir(folder.c_str(), 0700) == 0 || errno != ENOENT) return;
  make_folder_of(folder);
  mkdir(folder.c_str(), 0700);
}

int open_for_append(const std::string& path) {
  return open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
}

}  // namespace

void append_line(const std::string& path, const std::string& line) {
  int file = open_for_append(path);
  if (file < 0) {
    make_folder_of(path);
    file = open_for_append(path);
    if (file < 0) return;
  }
  [[maybe_unused]] ssize_t n = write(file, line.data(), line.size());
  struct stat status;
  bool full = fstat(file, &status) == 0 && status.st_size >= kMaxFileBytes;
  close(file);
  if (full) rename(path.c_str(), (path + ".1").c_str());
}

}  // namespace jigsaw
