// Locks on files, by which the backend and the controller exclude each other.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/base.h"

namespace jigsaw {

// A lock on the first byte of a file. It belongs to the open file description: closing another descriptor of the file
// does not release it, and the kernel releases it when this process ends.
class FileLock {
 public:
  enum class Kind : uint8_t { kShared, kExclusive };

  explicit FileLock(std::string path) : path_(std::move(path)) {}
  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

  // Locks the file without waiting. Creates the file, its folder and the parent of its folder if they are missing.
  // Returns false if another process holds the lock, or if the file cannot be opened.
  bool lock(Kind kind);
  void unlock();

 private:
  bool set(short type);

  const std::string path_;
  int file_ = -1;
};

class KeptLocks;

// Users of something that the controller may remove. A file is locked while there is a user, and the controller locks
// it before the removal, to be sure that there is none. The lock stays for a short time after the last user, because
// the next one usually follows at once. Guarded by the engine's lock, except for the destructor.
class Users : public std::enable_shared_from_this<Users> {
 public:
  Users(KeptLocks& kept, std::string path, FileLock::Kind kind)
      : kept_locks_(kept), lock_(std::move(path)), kind_(kind) {}

  int64_t count() const { return count_; }

  // Adds a user. Returns false if the file cannot be locked. Sets `locked` to true if this user locked the file.
  bool add(Time at, bool& locked);
  void remove(Time at);

 private:
  friend class KeptLocks;

  void unlock();

  KeptLocks& kept_locks_;
  FileLock lock_;
  const FileLock::Kind kind_;
  int64_t count_ = 0;
  Time locked_ = 0;    // Time at which the file was locked; 0 if it is not locked.
  bool kept_ = false;  // True if `kept_locks_` has it.
};

// The locks that are kept after their last user. A sequence of calls to a model thus locks its file once per
// `kMaxKept`, not once per call. Guarded by the engine's lock.
class KeptLocks {
 public:
  // Time after which a lock that has no users is released, counted from when it was taken. So the controller waits at
  // most this long for nothing, and each lock is taken anew, and the route is read again, at least this often if calls
  // do not overlap.
  static constexpr Time kMaxKept = 10 * kMillisecond;

  // `wake_at` makes the event loop call `release` at a time.
  explicit KeptLocks(std::function<void(Time)> wake_at) : wake_at_(std::move(wake_at)) {}

  void keep(Users& users);

  // Releases the locks whose time is over. Returns the time of the next call; kNever for none.
  Time release(Time at);

 private:
  std::function<void(Time)> wake_at_;
  // Some may have users again. They may be destroyed meanwhile, also without the engine's lock.
  std::vector<std::weak_ptr<Users>> kept_;
};

}  // namespace jigsaw
