// Regions are announced through one atomic word; workers spin on it for a while and then sleep on a condition variable.
#include "kernels/cpu/thread_pool.h"

#include <chrono>
#include <utility>

#include "kernels/check.h"

#if defined(__linux__)
#include <sched.h>
#endif
#if defined(__x86_64__)
#include <emmintrin.h>
#endif

namespace pkv {
namespace {

// Longer than the gaps between the regions of one step, much shorter than the idle time between requests.
constexpr std::chrono::microseconds kSpin{50};
constexpr int32_t kPausesPerClockRead = 32;

void cpu_pause() {
#if defined(__x86_64__)
  _mm_pause();
#else
  std::this_thread::yield();
#endif
}

constexpr int kTaskBits = 20;
constexpr uint64_t kTaskMask = (uint64_t{1} << kTaskBits) - 1;
static_assert(ThreadPool::kMaxTasks == kTaskMask);

uint64_t make_ticket(uint32_t generation, int64_t tasks) {
  return (static_cast<uint64_t>(generation) << (2 * kTaskBits)) | (static_cast<uint64_t>(tasks) << kTaskBits);
}
uint32_t generation_of(uint64_t ticket) { return static_cast<uint32_t>(ticket >> (2 * kTaskBits)); }
uint64_t tasks_of(uint64_t ticket) { return (ticket >> kTaskBits) & kTaskMask; }
uint64_t next_of(uint64_t ticket) { return ticket & kTaskMask; }

// Spins until `ready()`; false when the time is up.
template <typename Ready>
bool spin_until(Ready ready) {
  const auto deadline = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int32_t i = 0; i < kPausesPerClockRead; ++i) {
      if (ready()) return true;
      cpu_pause();
    }
  } while (std::chrono::steady_clock::now() < deadline);
  return false;
}

}  // namespace

int32_t available_cores() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) > 0) return CPU_COUNT(&set);
#endif
  const unsigned cores = std::thread::hardware_concurrency();
  return cores == 0 ? 1 : static_cast<int32_t>(cores);
}

ThreadPool::ThreadPool(int32_t threads) {
  PKV_CHECK(threads >= 1, "a pool needs a thread");
  workers_.reserve(threads - 1);
  for (int32_t thread = 1; thread < threads; ++thread) {
    workers_.emplace_back([this, thread] { work(thread); });
  }
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    closing_.store(true);
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::run(int64_t tasks, Body body) {
  PKV_CHECK(tasks <= kMaxTasks, "too many tasks for one region");
  if (tasks <= 1 || workers_.empty()) {
    for (int64_t task = 0; task < tasks; ++task) body(task, 0);
    return;
  }
  // The previous region's tasks are all taken, so a late worker finds none under the old ticket, whichever body it
  // reads.
  const uint64_t ticket = make_ticket(generation_of(ticket_.load(std::memory_order_relaxed)) + 1, tasks);
  body_.store(&body, std::memory_order_relaxed);
  ticket_.store(ticket);
  if (sleepers_.load() > 0) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
    }  // a worker between its last look and its sleep must not miss the call
    wake_.notify_all();
  }
  expected_ += static_cast<uint32_t>(tasks) - run_tasks(generation_of(ticket), 0);
  const auto finished = [&] { return done_.load(std::memory_order_acquire) == expected_; };
  while (!spin_until(finished)) std::this_thread::yield();
  if (!thrown_.load()) return;
  thrown_.store(false);
  std::rethrow_exception(std::exchange(exception_, nullptr));
}

uint32_t ThreadPool::run_tasks(uint32_t generation, int32_t thread) {
  uint32_t ran = 0;
  uint64_t ticket = ticket_.load();
  while (generation_of(ticket) == generation && next_of(ticket) < tasks_of(ticket)) {
    const Body* body = body_.load(std::memory_order_relaxed);
    if (!ticket_.compare_exchange_weak(ticket, ticket + 1)) continue;
    run_task(*body, static_cast<int64_t>(next_of(ticket)), thread);
    ++ran;
    ticket = ticket_.load();
  }
  return ran;
}

void ThreadPool::run_task(const Body& body, int64_t task, int32_t thread) noexcept {
  try {
    body(task, thread);
  } catch (...) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!exception_) exception_ = std::current_exception();
    thrown_.store(true);
  }
}

void ThreadPool::work(int32_t thread) {
  uint32_t generation = 0;
  while (await_region(generation, &generation)) {
    const uint32_t ran = run_tasks(generation, thread);
    if (ran > 0) done_.fetch_add(ran, std::memory_order_release);
  }
}

bool ThreadPool::await_region(uint32_t seen, uint32_t* generation) {
  const auto announced = [&] {
    *generation = generation_of(ticket_.load());
    return *generation != seen || closing_.load();
  };
  if (!spin_until(announced)) {
    std::unique_lock<std::mutex> lock(mutex_);
    sleepers_.fetch_add(1);
    wake_.wait(lock, announced);
    sleepers_.fetch_sub(1);
  }
  return !closing_.load();
}

}  // namespace pkv
