// A few threads and a bounded queue of what they are to do.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace pkv {

class WorkerPool {
 public:
  using Task = std::function<void()>;

  // At most `max_queued` tasks wait for a thread.
  WorkerPool(int threads, size_t max_queued);
  ~WorkerPool() { stop(); }
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  // Thread-safe; returns at once. Tasks begin in the order they came. False: the queue is full, or the pool
  // has stopped.
  bool post(Task task);
  // Does what is queued and then no more. Not from a task.
  void stop();

 private:
  void run();

  const size_t max_queued_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Task> queue_;
  bool stopping_ = false;
  std::vector<std::jthread> threads_;
};

}  // namespace pkv
