#include "core/worker.h"

#include <sys/stat.h>

#include <algorithm>
#include <bit>

#include "core/connection.h"

namespace jigsaw {
namespace {

constexpr Time kInitialBackoff = 100 * kMillisecond;
constexpr Time kMaxBackoff = 2 * kSecond;

// Maximum after a call that was not executed. Such a call costs its requests little, and a server that restarts gets
// calls again soon after it is ready.
constexpr Time kMaxBackoffUnexecuted = 300 * kMillisecond;

// Returns the bit of a batch size in a set of sizes, which are rounded up to powers of two.
uint32_t size_bit(int64_t items) {
  return uint32_t{1} << std::min<int>(int(std::bit_width(uint64_t(std::max<int64_t>(items, 1) - 1))), 31);
}

}  // namespace

ServerIdentity identity_of_socket(const std::string& path) {
  struct stat status;
  if (stat(path.c_str(), &status) != 0) return kNoServer;
  return int64_t(status.st_mtim.tv_sec) * 1'000'000'000 + status.st_mtim.tv_nsec;
}

Server::Server(std::string name, std::string address, bool remote)
    : name(std::move(name)), address(std::move(address)), remote(remote) {}

Server::~Server() = default;

void Server::check_identity(Time at) {
  if (at < identity_checked_ + kIdentityCheckInterval) return;
  identity_checked_ = at;
  ServerIdentity found = identity_of_socket(address);
  if (found != kNoServer && found != identity_) {
    identity_ = found;
    condemned_since_ = kNever;
    epoch++;
  }
}

void Server::condemn(Time at) {
  // While the socket is removed, the process is the one that was found before.
  ServerIdentity found = identity_of_socket(address);
  if (found != kNoServer) identity_ = found;
  condemned_since_ = at;
  identity_checked_ = at;
}

Worker::Worker(std::shared_ptr<Server> server, std::string model, KeptLocks& kept, std::string slot_file)
    : server(std::move(server)),
      model(std::move(model)),
      calls_(std::make_shared<Users>(kept, std::move(slot_file), FileLock::Kind::kExclusive)) {}

bool Worker::acquire(Time at, bool& locked) {
  if (!calls_->add(at, locked)) return false;
  note_load();
  return true;
}

void Worker::release(Time at) {
  calls_->remove(at);
  note_load();
}

void Worker::add(const Use& use) {
  uses_.push_back(use);
  note_load();
}

void Worker::remove(const Task& task) {
  std::erase_if(uses_, [&](const Use& use) { return use.task == &task; });
}

void Worker::note_load() {
  for (const Use& use : uses_) use.free->set(use.entry, in_flight() < use.capacity);
}

void Worker::failed(bool executed, Time at) {
  backoff_ = backoff_ ? std::min(2 * backoff_, executed ? kMaxBackoff : kMaxBackoffUnexecuted) : kInitialBackoff;
  backoff_until_ = at + backoff_;
  failing_since_ = std::min(failing_since_, at);
  server->epoch++;
}

void Worker::answered(int64_t items, std::optional<Time> took) {
  if (took) service.add(items, *took);
  backoff_ = 0;
  backoff_until_ = 0;
  failing_since_ = kNever;
  if (answered_epoch_ != server->epoch) {
    answered_epoch_ = server->epoch;
    answered_sizes_ = 0;
  }
  answered_sizes_ |= size_bit(items);
}

bool Worker::has_answered(int64_t items) const {
  return answered_epoch_ == server->epoch && (answered_sizes_ & size_bit(items));
}

}  // namespace jigsaw
