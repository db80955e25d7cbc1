// The scheduler on numbers alone: what is reserved, who is admitted, and whose prompt goes on.
#include "server/engine/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <string>

namespace pkv {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr Scheduler::Limits kLimits{
    .pool_pages = 100, .workspace_bytes = 1000, .max_running = 8, .concurrent_prefills = 2};

JobCost pages(uint64_t steady, uint64_t peak) {
  return {.steady_pages = steady, .peak_pages = peak, .workspace_bytes = 1, .prefill_work = 10};
}
JobCost work(int64_t units) {
  return {.steady_pages = 1, .peak_pages = 1, .workspace_bytes = 1, .prefill_work = units};
}

// Runs units of work 1 until nothing is left to prefill; returns the jobs in the order of their units.
std::vector<JobId> run_units(Scheduler& scheduler, std::map<JobId, int64_t>& left, int most = 1000) {
  std::vector<JobId> order;
  for (int i = 0; i < most; ++i) {
    const auto job = scheduler.next_prefill();
    if (!job) break;
    order.push_back(*job);
    scheduler.prefill_progress(*job, 1);
    if (--left[*job] == 0) scheduler.prefill_done(*job);
  }
  return order;
}

TEST(Scheduler, FitsEverIsAboutTheJobAlone) {
  EXPECT_TRUE(Scheduler::fits_ever(pages(1, 100), kLimits));
  EXPECT_FALSE(Scheduler::fits_ever(pages(1, 101), kLimits));
  EXPECT_TRUE(Scheduler::fits_ever({.peak_pages = 1, .workspace_bytes = 1000}, kLimits));
  EXPECT_FALSE(Scheduler::fits_ever({.peak_pages = 1, .workspace_bytes = 1001}, kLimits));
  EXPECT_TRUE(Scheduler::fits_ever({.peak_pages = 1, .workspace_bytes = 300, .state_bytes = 700}, kLimits));
  EXPECT_FALSE(Scheduler::fits_ever({.peak_pages = 1, .workspace_bytes = 301, .state_bytes = 700}, kLimits));
}

// A step of the engine that changes nothing for those who wait costs them nothing, however many they are.
TEST(Scheduler, LooksAtThoseWhoWaitOnlyWhenSomethingChanged) {
  Scheduler scheduler(kLimits);
  scheduler.enqueue(1, pages(60, 60));
  scheduler.enqueue(2, pages(30, 30));
  for (JobId id = 3; id < 103; ++id) scheduler.enqueue(id, pages(50, 50));
  EXPECT_THAT(scheduler.admit(), ElementsAre(1, 2));
  uint64_t looked_at = scheduler.looked_at();
  for (int step = 0; step < 1000; ++step) {
    EXPECT_THAT(scheduler.admit(), IsEmpty());
    scheduler.decode_progress(1, 5);
  }
  EXPECT_EQ(scheduler.looked_at(), looked_at);
  scheduler.prefill_done(2);
  EXPECT_THAT(scheduler.admit(), IsEmpty());
  EXPECT_EQ(scheduler.looked_at(), looked_at += 100);
  scheduler.remove(1);
  EXPECT_THAT(scheduler.admit(), ElementsAre(3));
  EXPECT_EQ(scheduler.looked_at(), looked_at += 1 + 99);
  scheduler.enqueue(103, pages(20, 20));
  EXPECT_THAT(scheduler.admit(), ElementsAre(103));  // passes 99
  EXPECT_EQ(scheduler.looked_at(), looked_at += 100 + 99);
}

TEST(Scheduler, ReservesSteadyPagesAndTheLargestSurpluses) {
  Scheduler scheduler(kLimits);
  scheduler.enqueue(1, pages(10, 30));  // surplus 20
  scheduler.enqueue(2, pages(5, 30));   // surplus 25
  scheduler.enqueue(3, pages(20, 25));  // surplus 5: not among the two largest
  EXPECT_THAT(scheduler.admit(), ElementsAre(1, 2, 3));
  EXPECT_EQ(scheduler.reserved_pages(), 10u + 5u + 20u + 20u + 25u);
  scheduler.prefill_done(2);
  EXPECT_EQ(scheduler.reserved_pages(), 10u + 5u + 20u + 20u + 5u);
  scheduler.remove(1);
  EXPECT_EQ(scheduler.reserved_pages(), 5u + 20u + 5u);
  scheduler.prefill_done(3);
  scheduler.remove(3);
  scheduler.remove(2);
  EXPECT_EQ(scheduler.reserved_pages(), 0u);
}

TEST(Scheduler, AdmitsUpToTheLastPage) {
  Scheduler exact(kLimits), over(kLimits);
  exact.enqueue(1, pages(40, 50));
  exact.enqueue(2, pages(40, 50));
  EXPECT_THAT(exact.admit(), ElementsAre(1, 2));
  over.enqueue(1, pages(40, 50));
  over.enqueue(2, pages(40, 51));
  EXPECT_THAT(over.admit(), ElementsAre(1));
  over.prefill_done(1);
  EXPECT_THAT(over.admit(), ElementsAre(2));
}

TEST(Scheduler, AdmitsNoMoreThanMaxRunning) {
  Scheduler scheduler({.pool_pages = 100, .workspace_bytes = 1000, .max_running = 2, .concurrent_prefills = 2});
  for (JobId id = 1; id <= 3; ++id) scheduler.enqueue(id, pages(1, 1));
  EXPECT_THAT(scheduler.admit(), ElementsAre(1, 2));
  scheduler.remove(1);
  EXPECT_THAT(scheduler.admit(), ElementsAre(3));
}

TEST(Scheduler, SmallOnesPassABigOneOnlySoOften) {
  Scheduler scheduler({.pool_pages = 100, .workspace_bytes = 1000, .max_running = 1000, .concurrent_prefills = 2});
  scheduler.enqueue(1, pages(50, 50));
  scheduler.enqueue(2, pages(90, 90));  // must wait for job 1
  EXPECT_THAT(scheduler.admit(), ElementsAre(1));
  int passed = 0;
  for (JobId id = 3; id < 100; ++id) {
    scheduler.enqueue(id, pages(1, 1));
    for (const JobId admitted : scheduler.admit()) {
      ++passed;
      scheduler.remove(admitted);
    }
  }
  EXPECT_EQ(passed, Scheduler::kMaxOvertakes);
  scheduler.remove(1);
  std::vector<JobId> admitted = scheduler.admit();
  ASSERT_FALSE(admitted.empty());
  EXPECT_EQ(admitted.front(), 2u);
}

TEST(Scheduler, OvertakingIsLimitedWithinOneCallToo) {
  Scheduler scheduler({.pool_pages = 100, .workspace_bytes = 1000, .max_running = 1000, .concurrent_prefills = 2});
  scheduler.enqueue(1, pages(50, 50));
  scheduler.enqueue(2, pages(90, 90));
  for (JobId id = 3; id < 3 + 2 * Scheduler::kMaxOvertakes; ++id) scheduler.enqueue(id, pages(1, 1));
  EXPECT_EQ(scheduler.admit().size(), size_t{1} + Scheduler::kMaxOvertakes);
}

TEST(Scheduler, RemovesWaitingJobs) {
  Scheduler scheduler(kLimits);
  scheduler.enqueue(1, pages(60, 60));
  scheduler.enqueue(2, pages(60, 60));
  EXPECT_THAT(scheduler.admit(), ElementsAre(1));
  EXPECT_EQ(scheduler.waiting(), 1u);
  scheduler.remove(2);
  EXPECT_EQ(scheduler.waiting(), 0u);
  scheduler.remove(1);
  EXPECT_THAT(scheduler.admit(), IsEmpty());
}

TEST(Scheduler, TheShortestPromptGoesFirst) {
  Scheduler scheduler(kLimits);
  scheduler.enqueue(1, work(3));
  scheduler.enqueue(2, work(1));
  scheduler.enqueue(3, work(2));
  scheduler.admit();
  std::map<JobId, int64_t> left = {{1, 3}, {2, 1}, {3, 2}};
  EXPECT_THAT(run_units(scheduler, left), ElementsAre(2, 3, 3, 1, 1, 1));
}

TEST(Scheduler, EqualPromptsKeepTheirOrder) {
  Scheduler scheduler(kLimits);
  scheduler.enqueue(1, work(6));
  scheduler.enqueue(2, work(6));
  scheduler.admit();
  std::map<JobId, int64_t> left = {{1, 6}, {2, 6}};
  EXPECT_THAT(run_units(scheduler, left), ElementsAre(1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2));
}

TEST(Scheduler, AShortPromptOvertakesALongOneUnderWay) {
  Scheduler scheduler(kLimits);
  scheduler.enqueue(1, work(20));
  scheduler.admit();
  std::map<JobId, int64_t> left = {{1, 20}, {2, 3}};
  run_units(scheduler, left, 5);
  scheduler.enqueue(2, work(3));
  scheduler.admit();
  EXPECT_THAT(run_units(scheduler, left, 4), ElementsAre(2, 2, 2, 1));
}

TEST(Scheduler, AtMostSoManyPrefillsAreUnderWay) {
  Scheduler scheduler(kLimits);  // two
  std::map<JobId, int64_t> left = {{1, 30}, {2, 20}, {3, 10}};
  for (const auto& [id, units] : std::map<JobId, int64_t>(left)) {
    scheduler.enqueue(id, work(units));
    scheduler.admit();
    run_units(scheduler, left, 1);
  }
  EXPECT_EQ(scheduler.workspace_bytes(), 2u);
  EXPECT_EQ(left.at(3), 10);  // shorter, but both places are taken
}

TEST(Scheduler, AStreamOfShortPromptsDoesNotStopALongOne) {
  Scheduler scheduler(kLimits);
  constexpr int64_t kLong = 50;
  std::map<JobId, int64_t> left = {{1, kLong}};
  scheduler.enqueue(1, work(kLong));
  int units = 0;
  for (JobId next = 2; left.at(1) > 0; ++next) {
    left[next] = 2;
    scheduler.enqueue(next, work(2));
    scheduler.admit();
    units += static_cast<int>(run_units(scheduler, left, 2).size());
    for (const auto& [id, remaining] : left) {
      if (remaining == 0) scheduler.remove(id);
    }
    ASSERT_LE(units, kLong * Scheduler::kUnitsPerTurn + 2);
  }
  EXPECT_GT(units, kLong);  // the others had their share
}

// What is told without the scheduler is what it does itself.
TEST(Scheduler, WhatHasRoomIsAdmitted) {
  std::mt19937 rng(5);
  const auto number = [&](uint64_t most) { return rng() % (most + 1); };
  int32_t admitted = 0, refused = 0;
  for (int32_t round = 0; round < 200; ++round) {
    const Scheduler::Limits limits{
        .pool_pages = 200, .workspace_bytes = 60, .max_running = 12, .concurrent_prefills = 2};
    Scheduler scheduler(limits);
    for (JobId id = 1; id <= 14; ++id) {
      const uint64_t steady = number(15);
      const JobCost cost{.steady_pages = steady,
                         .peak_pages = steady + number(60),
                         .workspace_bytes = number(20),
                         .state_bytes = number(8),
                         .prefill_work = 1};
      const bool room = scheduler.room().admits(cost);
      scheduler.enqueue(id, cost);
      const std::vector<JobId> now = scheduler.admit();
      EXPECT_EQ(now.size(), room ? 1u : 0u);
      EXPECT_LE(scheduler.reserved_pages(), limits.pool_pages);
      ++(room ? admitted : refused);
      if (!room) scheduler.remove(id);
      if (room && number(2) == 0) {
        const std::optional<JobId> next = scheduler.next_prefill();
        ASSERT_TRUE(next.has_value());
        scheduler.prefill_progress(*next, 1);
        scheduler.prefill_done(*next);
      }
    }
  }
  EXPECT_GT(admitted, 500);
  EXPECT_GT(refused, 100);
}

TEST(Scheduler, TheOldestGetsItsWorkspaceInTheEnd) {
  // Job 2 needs all of the workspace; a chain of ever shorter prompts would keep a part of it in use forever.
  Scheduler scheduler({.pool_pages = 1000, .workspace_bytes = 10, .max_running = 1000, .concurrent_prefills = 2});
  JobCost big = work(100);
  big.workspace_bytes = 10;
  std::map<JobId, int64_t> left = {{1, 4}, {2, 100}};
  scheduler.enqueue(1, work(4));
  scheduler.enqueue(2, big);
  scheduler.admit();
  run_units(scheduler, left, 1);
  int units = 0;
  for (JobId next = 3; left.at(2) == 100; ++next) {
    left[next] = 4;
    scheduler.enqueue(next, work(4));
    scheduler.admit();
    units += static_cast<int>(run_units(scheduler, left, 3).size());
    for (const auto& [id, remaining] : left) {
      if (remaining == 0) scheduler.remove(id);
    }
    ASSERT_LE(units, 20);
  }
}

TEST(Scheduler, WorkspaceIsNeverExceededAndAlwaysReturned) {
  Scheduler scheduler({.pool_pages = 1000, .workspace_bytes = 100, .max_running = 1000, .concurrent_prefills = 3});
  std::mt19937 rng(5);
  std::map<JobId, int64_t> left;
  for (JobId id = 1; id <= 60; ++id) {
    JobCost cost = work(1 + static_cast<int64_t>(rng() % 9));
    cost.workspace_bytes = 1 + rng() % 100;
    left[id] = cost.prefill_work;
    scheduler.enqueue(id, cost);
  }
  scheduler.admit();
  while (!run_units(scheduler, left, 1).empty()) EXPECT_LE(scheduler.workspace_bytes(), 100u);
  for (const auto& [id, remaining] : left) EXPECT_EQ(remaining, 0) << id;
  EXPECT_EQ(scheduler.workspace_bytes(), 0u);
}

TEST(Scheduler, StateIsReservedUntilTheJobEnds) {
  Scheduler scheduler({.pool_pages = 100, .workspace_bytes = 10, .max_running = 8, .concurrent_prefills = 2});
  const auto job = [](uint64_t workspace, uint64_t state) {
    return JobCost{.workspace_bytes = workspace, .state_bytes = state, .prefill_work = 1};
  };
  scheduler.enqueue(1, job(2, 6));
  scheduler.enqueue(2, job(2, 3));  // 6 + 3 and a workspace of 2
  scheduler.enqueue(3, job(4, 0));  // 6 and its own workspace
  EXPECT_THAT(scheduler.admit(), ElementsAre(1, 3));
  EXPECT_EQ(scheduler.next_prefill(), 1u);
  scheduler.prefill_progress(1, 1);
  scheduler.prefill_done(1);
  EXPECT_THAT(scheduler.admit(), IsEmpty());
  EXPECT_EQ(scheduler.next_prefill(), 3u);
  scheduler.remove(1);
  EXPECT_THAT(scheduler.admit(), ElementsAre(2));
}

TEST(Scheduler, StateAndWorkspaceStayWithinTheirLimitAndEveryoneIsServed) {
  constexpr uint64_t kLimit = 100;
  std::mt19937 rng(7);
  for (int round = 0; round < 50; ++round) {
    Scheduler scheduler({.pool_pages = 1000, .workspace_bytes = kLimit, .max_running = 1000, .concurrent_prefills = 2});
    std::map<JobId, JobCost> jobs;
    std::map<JobId, int64_t> left;
    for (JobId id = 1; id <= 60; ++id) {
      JobCost cost = work(1 + static_cast<int64_t>(rng() % 5));
      cost.workspace_bytes = 1 + rng() % 60;
      cost.state_bytes = rng() % 2 == 0 ? 0 : rng() % 40;
      jobs[id] = cost;
      left[id] = cost.prefill_work;
      scheduler.enqueue(id, cost);
    }
    std::map<JobId, bool> started;
    while (!jobs.empty()) {
      scheduler.admit();
      ASSERT_GT(scheduler.admitted(), 0u);
      for (const JobId id : run_units(scheduler, left, 1)) started[id] = true;
      uint64_t held = scheduler.workspace_bytes();
      for (const auto& [id, running] : started) held += jobs.count(id) > 0 ? jobs[id].state_bytes : 0;
      ASSERT_LE(held, kLimit);
      for (auto job = jobs.begin(); job != jobs.end();) {  // answers end when they end
        const bool ends = left[job->first] == 0 && rng() % 3 == 0;
        if (ends) scheduler.remove(job->first);
        job = ends ? jobs.erase(job) : std::next(job);
      }
    }
  }
}

}  // namespace
}  // namespace pkv
