// Worker threads for data-parallel regions of a few microseconds. The calling thread works too; a region ends when its
// tasks are done, so a worker that wakes too late costs nothing.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"

namespace pkv {

// Cores this process may run on (its affinity mask), at least 1.
int32_t available_cores();

class ThreadPool {
 public:
  using Body = absl::FunctionRef<void(int64_t task, int32_t thread)>;
  static constexpr int64_t kMaxTasks = (int64_t{1} << 20) - 1;  // of one region

  // `threads` counts the caller: threads - 1 workers are started.
  explicit ThreadPool(int32_t threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int32_t threads() const { return static_cast<int32_t>(workers_.size()) + 1; }

  // Calls body(task, thread) once for every task in [0, tasks), 0 <= thread < threads(), and returns when all are done.
  // Tasks are handed out in ascending order to whichever thread is free. One caller at a time; bodies must not call it
  // again. Operations go through parallel_for (parallel.h), which decides how much work a task is. What a body throws,
  // for lack of memory, is thrown on by run() once all tasks are done; of several the first.
  void run(int64_t tasks, Body body);

 private:
  void work(int32_t thread);
  // Takes and runs tasks of `generation` until none is left; how many it ran.
  uint32_t run_tasks(uint32_t generation, int32_t thread);
  void run_task(const Body& body, int64_t task, int32_t thread) noexcept;
  // Waits for a generation other than `seen`; false when the pool is closing.
  bool await_region(uint32_t seen, uint32_t* generation);

  std::vector<std::thread> workers_;
  uint32_t expected_ = 0;  // value of done_ once the workers' part of all regions so far is done

  // The region in one word: 24 bits of generation, 20 bits of the number of tasks, 20 bits of the next task. A task is
  // taken by compare-and-swap of the whole, so a thread that is late can never take a task of another region than the
  // one whose body it has read. One cache line with the body, since every transfer of a line between cores costs a
  // tenth of a microsecond.
  alignas(64) std::atomic<uint64_t> ticket_{0};
  std::atomic<const Body*> body_{nullptr};
  alignas(64) std::atomic<uint32_t> done_{0};  // tasks that workers have run, ever
  alignas(64) std::atomic<int32_t> sleepers_{0};
  std::atomic<bool> closing_{false};
  std::atomic<bool> thrown_{false};
  std::exception_ptr exception_;  // the first of the region; guarded by mutex_
  std::mutex mutex_;
  std::condition_variable wake_;
};

}  // namespace pkv
