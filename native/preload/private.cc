// Library that a tritonserver is started with through LD_PRELOAD. It keeps the server's secret and its shared memory
// from other users of the machine:
// - In an argument `--option=@FILE` it replaces `@FILE` by the content of the file, before main() begins. The kernel
//   shows every user the arguments that the process was started with, so they contain the path alone.
// - It removes all permissions of other users from files and regions. Triton's Python backend sets the mode of its
//   regions by fchmod(), which ignores the umask.

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

// Scripts and programs that start the server have the same arguments, but would show them expanded when they run it.
constexpr char kServer[] = "tritonserver";
constexpr char kPreload[] = "LD_PRELOAD";
constexpr size_t kMostBytes = 4096;

bool names_server(const char* program) {
  const char* slash = strrchr(program, '/');
  return strcmp(slash ? slash + 1 : program, kServer) == 0;
}

// Returns the argument with the content of the file, which is never freed.
char* expanded(const char* argument, const char* file) {
  const size_t option = size_t(file - 1 - argument);
  char* made = static_cast<char*>(malloc(option + kMostBytes + 1));
  const int opened = made ? open(file, O_RDONLY | O_CLOEXEC) : -1;
  const ssize_t count = opened < 0 ? -1 : read(opened, made + option, kMostBytes);
  if (count <= 0) {
    fprintf(stderr, "%.*s: the file %s cannot be read\n", int(option) - 1, argument, file);
    _exit(1);
  }
  close(opened);
  memcpy(made, argument, option);
  made[option + size_t(count)] = '\0';
  return made;
}

// Keeps this library, which is the first in the list, from the processes that the server starts.
void leave_children_alone() {
  const char* list = getenv(kPreload);
  const char* rest = list ? strchr(list, ':') : nullptr;
  if (rest) {
    setenv(kPreload, rest + 1, 1);
  } else {
    unsetenv(kPreload);
  }
}

__attribute__((constructor)) void begin(int argc, char** argv, char**) {
  if (argc == 0 || !names_server(argv[0])) return;
  leave_children_alone();
  umask(S_IRWXG | S_IRWXO);
  for (int i = 1; i < argc; ++i) {
    const char* value = strncmp(argv[i], "--", 2) == 0 ? strchr(argv[i], '=') : nullptr;
    // main() gets this very array.
    if (value && value[1] == '@') argv[i] = expanded(argv[i], value + 2);
  }
}

}  // namespace

extern "C" int fchmod(int file, mode_t mode) noexcept { return int(syscall(SYS_fchmod, file, mode & S_IRWXU)); }
