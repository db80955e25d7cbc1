#include "server/api/worker_pool.h"

#include <utility>

namespace pkv {

WorkerPool::WorkerPool(int threads, size_t max_queued) : max_queued_(max_queued) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { run(); });
}

void WorkerPool::set_max_queued(size_t max_queued) {
  const std::lock_guard lock(mutex_);
  max_queued_ = max_queued;
}

void WorkerPool::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    wake_.notify_all();
  }
  threads_.clear();  // which waits for them
}

bool WorkerPool::post(Task task, const std::string& owner) {
  const std::lock_guard lock(mutex_);
  if (stopping_ || queued_ >= max_queued_) return false;
  const auto own = queues_.find(owner);
  if (!owner.empty() && own != queues_.end() && own->second.size() >= max_queued_ - queued_) return false;
  if (own != queues_.end()) {
    own->second.push_back(std::move(task));
  } else {
    std::list<std::string> turn{owner};
    std::deque<Task> queue;
    queue.push_back(std::move(task));
    queues_.emplace(owner, std::move(queue));
    turns_.splice(turns_.end(), turn);
  }
  ++queued_;
  wake_.notify_one();
  return true;
}

// Takes no memory.
WorkerPool::Task WorkerPool::take() {
  const auto queue = queues_.find(turns_.front());
  Task task = std::move(queue->second.front());
  queue->second.pop_front();
  --queued_;
  if (queue->second.empty()) {
    queues_.erase(queue);
    turns_.pop_front();
  } else {
    turns_.splice(turns_.end(), turns_, turns_.begin());
  }
  return task;
}

void WorkerPool::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait(lock, [this] { return stopping_ || queued_ > 0; });
    if (queued_ == 0) return;
    Task task = take();
    lock.unlock();
    task();
    task = nullptr;  // what it holds goes without the lock
    lock.lock();
  }
}

}  // namespace pkv
