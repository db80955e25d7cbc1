// The one rule by which data-parallel work is cut into tasks. Work is counted in elements: a float that is read,
// changed and written is one, some tenths of a nanosecond on one core.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "kernels/cpu/thread_pool.h"

namespace pkv {

// What a task holds at least: a microsecond or two, against the tenth of one that it costs to hand a task to a thread.
constexpr int64_t kGrain = 8192;
// Tasks for each thread, so that none waits long for the last one, while they are not larger than kLargestTask. Eight
// cost a decode step 5 to 8 %: it waits for weights, and every task begins a stream of them anew.
constexpr int64_t kTasksPerThread = 4;
constexpr int64_t kLargestTask = 64 * kGrain;

constexpr int64_t elements_of_multiply_adds(int64_t multiply_adds) { return multiply_adds / 8; }

// Into how many tasks `items` of `work` elements each are cut: 1 where there are less than two grains, or one thread.
constexpr int64_t task_count(int64_t items, int64_t work, int32_t threads) {
  if (threads == 1) return 1;
  const int64_t total = items * std::max<int64_t>(work, 1);
  int64_t tasks = std::min(std::max(kTasksPerThread * threads, total / kLargestTask), total / kGrain);
  if (tasks > threads) tasks -= tasks % threads;
  return std::clamp<int64_t>(tasks, 1, std::min(items, ThreadPool::kMaxTasks));
}

// Runs all of [0, items), each item `work` elements, and returns when they are done. `body` is called as body(item),
// body(item, thread), or body(begin, end, thread) for consecutive items; 0 <= thread < pool.threads(). Bodies run in
// parallel, so what an item computes must not depend on the cut.
template <typename Body>
void parallel_for(ThreadPool& pool, int64_t items, int64_t work, const Body& body) {
  if (items <= 0) return;
  const int64_t tasks = task_count(items, work, pool.threads());
  pool.run(tasks, [&](int64_t task, int32_t thread) {
    const int64_t begin = items * task / tasks, end = items * (task + 1) / tasks;
    if constexpr (std::is_invocable_v<const Body&, int64_t, int64_t, int32_t>) {
      body(begin, end, thread);
    } else {
      for (int64_t item = begin; item < end; ++item) {
        if constexpr (std::is_invocable_v<const Body&, int64_t, int32_t>) {
          body(item, thread);
        } else {
          body(item);
        }
      }
    }
  });
}

}  // namespace pkv
