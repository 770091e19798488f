// Locks on files, by which the backend and the controller exclude each other.
#pragma once

#include <cstdint>
#include <string>

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
  // Returns false if another process holds the lock.
  bool lock(Kind kind);
  void unlock();

 private:
  bool set(short type);

  const std::string path_;
  int file_ = -1;
};

// Users of something that the controller may remove. A file is locked while there is a user, and the controller locks
// it before the removal, to be sure that there is none. Guarded by the engine's lock.
class Users {
 public:
  Users(std::string path, FileLock::Kind kind) : lock_(std::move(path)), kind_(kind) {}

  int64_t count() const { return count_; }

  // Adds a user. Returns false if the file cannot be locked. Sets `locked` to true if this user locked the file.
  bool add(bool& locked);
  void remove();

 private:
  FileLock lock_;
  const FileLock::Kind kind_;
  int64_t count_ = 0;
};

}  // namespace jigsaw
