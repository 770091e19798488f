// A thread that creates and frees shared memory, because that takes the kernel a large part of a second for hundreds of
// megabytes.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "core/region.h"

namespace jigsaw {

// Owned by the engine. All functions require its lock, except for the constructor and `stop`.
class RegionThread {
 public:
  // Returns true if a registration still needs a region. Called with the lock.
  using IsNeeded = std::function<bool(uint64_t number)>;

  // Takes the region of a registration that still needs it; it is empty if it could not be created. Called with the
  // lock.
  using Made = std::function<void(uint64_t number, Region region)>;

  // `prefix` is that of the names of shared memory.
  RegionThread(std::mutex& mutex, std::string prefix, IsNeeded is_needed, Made made);

  // Ends the thread.
  void stop();

  // Creates a region for a registration.
  void request(uint64_t number, size_t bytes);

  // Frees a region.
  void discard(Region region);

 private:
  struct Request {
    uint64_t number;  // Number of the registration.
    size_t bytes;
  };

  // Body of the thread.
  void run();

  std::mutex& mutex_;
  const std::string prefix_;
  const IsNeeded is_needed_;
  const Made made_;
  std::deque<Request> requests_;
  std::vector<Region> discarded_;  // Regions to free.
  bool stopping_ = false;
  std::condition_variable work_;
  std::thread thread_;
};

}  // namespace jigsaw
