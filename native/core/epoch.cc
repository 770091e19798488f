#include "core/epoch.h"

#include <fcntl.h>
#include <unistd.h>

#include <charconv>
#include <cstdio>

namespace jigsaw {

HighestEpoch::HighestEpoch(std::string file) : file_(std::move(file)) {
  int opened = open(file_.c_str(), O_RDONLY | O_CLOEXEC);
  if (opened < 0) return;
  char text[24];
  ssize_t size = read(opened, text, sizeof text);
  close(opened);
  if (size > 0) std::from_chars(text, text + size, value_);
}

bool HighestEpoch::admit(int64_t epoch) {
  if (epoch == 0 || epoch == value_) return true;
  if (epoch < value_) return false;
  value_ = epoch;
  // Without the file, as on a full disk, this process still refuses what it must.
  std::string temporary = file_ + ".new", text = std::to_string(epoch);
  int opened = open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  bool written = opened >= 0 && write(opened, text.data(), text.size()) == ssize_t(text.size());
  if (opened >= 0) close(opened);
  if (written) rename(temporary.c_str(), file_.c_str());
  return true;
}

}  // namespace jigsaw
