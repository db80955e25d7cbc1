#include "server/api/worker_pool.h"

#include <utility>

namespace pkv {

WorkerPool::WorkerPool(int threads, size_t max_queued) : max_queued_(max_queued) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { run(); });
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
  if (own == queues_.end()) turns_.push_back(owner);
  queues_[owner].push_back(std::move(task));
  ++queued_;
  wake_.notify_one();
  return true;
}

WorkerPool::Task WorkerPool::take() {
  std::string owner = std::move(turns_.front());
  turns_.pop_front();
  const auto queue = queues_.find(owner);
  Task task = std::move(queue->second.front());
  queue->second.pop_front();
  --queued_;
  if (queue->second.empty()) {
    queues_.erase(queue);
  } else {
    turns_.push_back(std::move(owner));
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
