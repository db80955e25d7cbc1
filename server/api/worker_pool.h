// A few threads and a bounded queue of what they are to do, owner by owner in turn.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace pkv {

class WorkerPool {
 public:
  using Task = std::function<void()>;

  // At most `max_queued` tasks wait for a thread.
  WorkerPool(int threads, size_t max_queued);
  // From now on; what is queued stays. Thread-safe.
  void set_max_queued(size_t max_queued);
  ~WorkerPool() { stop(); }
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  // Thread-safe; returns at once. Tasks of one owner begin in the order they came, owners take turns. False: the queue
  // is full, for an owner with a name when it has as many tasks in it as there are places left, or the pool has
  // stopped. std::bad_alloc: there is no memory for it, and nothing has changed.
  bool post(Task task, const std::string& owner = {});
  // Does what is queued and then no more. Not from a task.
  void stop();

 private:
  void run();
  Task take();

  std::mutex mutex_;
  size_t max_queued_;
  std::condition_variable wake_;
  std::map<std::string, std::deque<Task>> queues_;  // by owner, none empty
  std::list<std::string> turns_;                    // their owners, the next one first
  size_t queued_ = 0;
  bool stopping_ = false;
  std::vector<std::jthread> threads_;
};

}  // namespace pkv
