// The CPU backend's frame: regions of the thread pool, how work is cut into tasks, and the choice of instruction-set
// paths.
#include "kernels/cpu/thread_pool.h"

#include <atomic>
#include <chrono>
#include <new>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/path_choice.h"

namespace pkv {
namespace {

TEST(ThreadPoolTest, RunsEveryTaskOnce) {
  for (const int32_t threads : {1, 2, 3, 5}) {
    ThreadPool pool(threads);
    ASSERT_EQ(pool.threads(), threads);
    for (const int64_t tasks : {0, 1, 2, 7, 1000}) {
      std::vector<int32_t> runs(tasks, 0);
      std::atomic<int64_t> strangers = 0;
      pool.run(tasks, [&](int64_t task, int32_t thread) {
        ++runs[task];
        if (thread < 0 || thread >= threads) ++strangers;
      });
      EXPECT_THAT(runs, testing::Each(1)) << tasks << " tasks";
      EXPECT_EQ(strangers, 0);
    }
  }
}

// What a region wrote is visible to the next one without further synchronisation, however short regions are.
TEST(ThreadPoolTest, RegionsFollowOneAnother) {
  ThreadPool pool(3);
  std::vector<int64_t> values(64, 0);
  for (int64_t round = 0; round < 5000; ++round) {
    const int64_t tasks = 1 + round % 64;
    pool.run(tasks, [&](int64_t task, int32_t) { values[(task + round) % 64] += 1; });
  }
  int64_t expected = 0;
  for (int64_t round = 0; round < 5000; ++round) expected += 1 + round % 64;
  int64_t total = 0;
  for (const int64_t value : values) total += value;
  EXPECT_EQ(total, expected);
}

constexpr int64_t kMuch = int64_t{1} << 40;

TEST(ParallelForTest, SmallWorkIsOneTask) {
  EXPECT_EQ(task_count(1000, 1, 8), 1);
  EXPECT_EQ(task_count(2 * kGrain - 1, 1, 8), 1);
  EXPECT_EQ(task_count(1000, kMuch, 1), 1) << "one thread";
  EXPECT_EQ(task_count(1, kMuch, 8), 1) << "one item";
}

TEST(ParallelForTest, TasksHoldAGrainAndAreSharedEvenly) {
  EXPECT_EQ(task_count(2 * kGrain, 1, 8), 2);
  EXPECT_EQ(task_count(100, kGrain / 10, 4), 8) << "ten grains, the same number for each thread";
  EXPECT_EQ(task_count(1000, kGrain, 4), 4 * kTasksPerThread);
  EXPECT_EQ(task_count(1000, kLargestTask, 4), 1000) << "no larger tasks than needed";
  EXPECT_EQ(task_count(kMuch, kLargestTask, 4), ThreadPool::kMaxTasks);
}

TEST(ParallelForTest, RunsEveryItemOnce) {
  ThreadPool pool(3);
  for (const int64_t work : {int64_t{0}, kGrain / 7, kLargestTask}) {
    for (const int64_t items : {0, 1, 5, 18, 1000}) {
      std::vector<int32_t> runs(items, 0);
      parallel_for(pool, items, work, [&](int64_t item) { ++runs[item]; });
      parallel_for(pool, items, work, [&](int64_t item, int32_t) { ++runs[item]; });
      parallel_for(pool, items, work, [&](int64_t begin, int64_t end, int32_t) {
        for (; begin < end; ++begin) ++runs[begin];
      });
      EXPECT_THAT(runs, testing::Each(3)) << items << " items of " << work;
    }
  }
}

// Two tasks that wait for each other: only possible when two threads take part, also after the workers went to sleep.
TEST(ThreadPoolTest, WakesSleepingWorkers) {
  ThreadPool pool(2);
  for (int round = 0; round < 3; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    std::atomic<int32_t> arrived = 0;
    pool.run(2, [&](int64_t, int32_t) {
      ++arrived;
      while (arrived < 2) std::this_thread::yield();
    });
    EXPECT_EQ(arrived, 2);
  }
}

// An operation that finds no memory must end as one, on whichever thread it was.
TEST(ThreadPoolTest, WhatABodyThrowsReachesTheCallerWhenAllIsDone) {
  for (const int32_t threads : {1, 2, 3}) {
    ThreadPool pool(threads);
    for (int round = 0; round < 50; ++round) {
      std::atomic<int32_t> ran = 0;
      EXPECT_THROW(pool.run(100,
                            [&](int64_t task, int32_t) {
                              if (task % 7 == round % 7) throw std::bad_alloc();
                              ++ran;
                            }),
                   std::bad_alloc);
      EXPECT_LE(ran, 86);
      ran = 0;
      pool.run(100, [&](int64_t, int32_t) { ++ran; });
      EXPECT_EQ(ran, 100);
    }
  }
}

TEST(IsaTest, CapsWhatTheMachineHas) {
  const IsaFeatures all = {.avx2 = true, .avx512 = true, .vnni = true, .bf16 = true};
  EXPECT_EQ(*cap_isa(all, ""), all);
  EXPECT_EQ(*cap_isa(all, "scalar"), IsaFeatures{});
  EXPECT_EQ(*cap_isa(all, "avx2"), IsaFeatures{.avx2 = true});
  EXPECT_EQ(*cap_isa(all, "avx512"), (IsaFeatures{.avx2 = true, .avx512 = true}));
  EXPECT_EQ(*cap_isa(all, "avx512_vnni"), (IsaFeatures{.avx2 = true, .avx512 = true, .vnni = true}));
  EXPECT_EQ(*cap_isa(all, "avx512_bf16"), all);
  const IsaFeatures tiles = {.avx2 = true, .avx512 = true, .vnni = true, .bf16 = true, .amx = true};
  EXPECT_EQ(*cap_isa(tiles, "avx512_bf16"), all);
  EXPECT_EQ(*cap_isa(tiles, "amx_bf16"), tiles);
  EXPECT_EQ(cap_isa(all, "amx_bf16").status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(cap_isa(all, "sse9").status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(IsaTest, RefusesWhatTheMachineLacks) {
  const IsaFeatures only_avx2 = {.avx2 = true};
  EXPECT_EQ(cap_isa(only_avx2, "avx512").status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(cap_isa({}, "avx2").status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(*cap_isa(only_avx2, ""), only_avx2);
  // Ice Lake multiplies bytes but not bfloat16.
  const IsaFeatures ice_lake = {.avx2 = true, .avx512 = true, .vnni = true};
  EXPECT_EQ(*cap_isa(ice_lake, "avx512_vnni"), ice_lake);
  EXPECT_EQ(cap_isa(ice_lake, "avx512_bf16").status().code(), absl::StatusCode::kFailedPrecondition);
  // Cooper Lake's features without VNNI.
  const IsaFeatures no_vnni = {.avx2 = true, .avx512 = true, .bf16 = true};
  EXPECT_EQ(*cap_isa(no_vnni, "avx512_bf16"), no_vnni);
  EXPECT_EQ(cap_isa(no_vnni, "avx512_vnni").status().code(), absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace pkv
