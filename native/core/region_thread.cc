#include "core/region_thread.h"

#include <pthread.h>

#include <utility>

namespace jigsaw {

RegionThread::RegionThread(std::mutex& mutex, std::string prefix, IsNeeded is_needed, Made made)
    : mutex_(mutex), prefix_(std::move(prefix)), is_needed_(std::move(is_needed)), made_(std::move(made)) {
  thread_ = std::thread([this] { run(); });
}

void RegionThread::stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  work_.notify_one();
  thread_.join();
}

void RegionThread::request(uint64_t number, size_t bytes) {
  requests_.push_back({number, bytes});
  work_.notify_one();
}

void RegionThread::discard(Region region) {
  if (!region) return;
  discarded_.push_back(std::move(region));
  work_.notify_one();
}

void RegionThread::run() {
  pthread_setname_np(pthread_self(), "jigsaw-regions");
  std::unique_lock lock(mutex_);
  for (;;) {
    work_.wait(lock, [this] { return stopping_ || !requests_.empty() || !discarded_.empty(); });
    if (stopping_) return;
    std::vector<Region> discarded = std::exchange(discarded_, {});
    Region made;
    Request request{};
    bool needed = false;
    if (!requests_.empty()) {
      request = requests_.front();
      requests_.pop_front();
      needed = is_needed_(request.number);
    }
    lock.unlock();
    discarded.clear();
    if (needed) made = Region::make(prefix_, request.bytes);
    lock.lock();
    // In the meantime, the server may have been taken out of service or have left the route.
    if (needed && is_needed_(request.number))
      made_(request.number, std::move(made));
    else
      discard(std::move(made));
  }
}

}  // namespace jigsaw
