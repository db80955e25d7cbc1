// Who goes first where not all can: priorities, shares of owners, and that nobody starves. Counts, no time.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "server/engine/scheduler.h"
#include "tests/unit/engine/engine_fixture.h"

namespace pkv::test {
namespace {

using testing::ElementsAre;

constexpr Scheduler::Limits kOneAtATime{
    .pool_pages = 100, .workspace_bytes = 1000, .max_running = 1, .concurrent_prefills = 2};
constexpr Scheduler::Limits kMany{
    .pool_pages = 100, .workspace_bytes = 1000, .max_running = 100, .concurrent_prefills = 2};

JobCost prompt(int64_t work) {
  return {.steady_pages = 1, .peak_pages = 1, .workspace_bytes = 1, .prefill_work = work};
}

// Jobs in the order of their admission, each done before the next is admitted.
class OneByOne {
 public:
  JobId add(const std::string& owner, int64_t work, int32_t priority = 0) {
    scheduler_.enqueue(next_, prompt(work), {.owner = owner, .priority = priority});
    work_[next_] = work;
    return next_++;
  }
  // The next one, 0 where there is none; it generates `decoded` as well.
  JobId run(int64_t decoded = 0) {
    const std::vector<JobId> admitted = scheduler_.admit();
    if (admitted.empty()) return 0;
    EXPECT_EQ(scheduler_.next_prefill(), admitted.front());
    scheduler_.prefill_progress(admitted.front(), work_.at(admitted.front()));
    scheduler_.prefill_done(admitted.front());
    scheduler_.decode_progress(admitted.front(), decoded);
    scheduler_.remove(admitted.front());
    return admitted.front();
  }
  std::vector<JobId> run_all() {
    std::vector<JobId> order;
    while (const JobId job = run()) order.push_back(job);
    return order;
  }
  Scheduler& scheduler() { return scheduler_; }

 private:
  Scheduler scheduler_{kOneAtATime};
  std::map<JobId, int64_t> work_;
  JobId next_ = 1;
};

TEST(Fairness, AFloodDoesNotDelayAnotherOwner) {
  OneByOne jobs;
  for (int i = 0; i < 50; ++i) jobs.add("flood", 10);
  EXPECT_EQ(jobs.run(), 1u);
  const JobId other = jobs.add("other", 10);
  EXPECT_EQ(jobs.run(), 2u);  // level: the older one
  EXPECT_EQ(jobs.run(), other);
}

TEST(Fairness, SharesAreOfWorkNotOfJobs) {
  OneByOne jobs;
  std::map<JobId, std::string> owner;
  std::map<std::string, int64_t> had;
  for (int i = 0; i < 100; ++i) owner[jobs.add("long", 30)] = "long";
  for (int i = 0; i < 300; ++i) owner[jobs.add("short", 2)] = "short";
  for (int i = 0; i < 200; ++i) {
    const JobId job = jobs.run(owner.size() % 2);
    had[owner.at(job)] += owner.at(job) == "long" ? 30 : 2;
    EXPECT_LE(std::abs(had["long"] - had["short"]), 30);
  }
}

TEST(Fairness, AnswersCountAsPromptsDo) {
  OneByOne jobs;
  for (int i = 0; i < 10; ++i) jobs.add("talker", 1);
  for (int i = 0; i < 10; ++i) jobs.add("other", 1);
  EXPECT_EQ(jobs.run(/*decoded=*/5), 1u);
  for (JobId expected = 11; expected <= 16; ++expected) EXPECT_EQ(jobs.run(), expected);
  EXPECT_EQ(jobs.run(), 2u);
}

TEST(Fairness, WhatIsPromisedCountsUntilItIsGivenUp) {
  Scheduler scheduler(kMany);
  for (JobId id = 1; id <= 4; ++id) scheduler.enqueue(id, prompt(10), {.owner = "a"});
  ASSERT_EQ(scheduler.admit().size(), 4u);
  Scheduler::Limits limits = kMany;
  limits.max_running = 3;
  Scheduler few(limits);
  few.enqueue(1, prompt(10), {.owner = "a"});
  few.enqueue(2, prompt(10), {.owner = "a"});
  few.enqueue(3, prompt(10), {.owner = "a"});
  few.enqueue(4, prompt(30), {.owner = "b"});
  EXPECT_THAT(few.admit(), ElementsAre(1, 4, 2));  // level, then 10 to 0, then 10 to 30
}

TEST(Fairness, NewcomersBeginLevelAndDebtsStay) {
  OneByOne jobs;
  for (int i = 0; i < 20; ++i) jobs.add("old", 10);
  for (int i = 0; i < 10; ++i) jobs.run();
  const JobId first = jobs.add("new", 10), second = jobs.add("new", 10), third = jobs.add("new", 10);
  EXPECT_EQ(jobs.run(), 11u);  // what it had when it was alone is nobody's loss
  EXPECT_EQ(jobs.run(), first);
  EXPECT_EQ(jobs.run(), 12u);
  EXPECT_EQ(jobs.run(), second);
  // Whoever goes and comes back has had no less.
  for (JobId id = 13; id <= 20; ++id) jobs.scheduler().remove(id);
  jobs.scheduler().enqueue(100, prompt(10), {.owner = "old"});
  jobs.scheduler().remove(100);
  EXPECT_EQ(jobs.run(), third);
}

TEST(Fairness, AccountsAreForgottenWithTheirOwners) {
  ServiceAccounts accounts;
  accounts.join("a").had = 5;
  for (int i = 0; i < 1000; ++i) {
    const std::string owner = std::to_string(i);
    accounts.join(owner);
    accounts.leave(owner);
  }
  EXPECT_EQ(accounts.size(), 1u);
  accounts.leave("a");
  EXPECT_EQ(accounts.size(), 0u);
}

TEST(Fairness, TheLowerPriorityGoesFirst) {
  OneByOne jobs;
  jobs.add("a", 10, 5);
  jobs.add("a", 10, 0);
  jobs.add("b", 10, -3);
  jobs.add("a", 10, -3);
  EXPECT_THAT(jobs.run_all(), ElementsAre(3, 4, 2, 1));
}

TEST(Fairness, NoPriorityStarves) {
  OneByOne jobs;
  std::vector<JobId> low;
  for (const int32_t priority : {1, 2, 100}) low.push_back(jobs.add("low", 10, priority));
  std::vector<JobId> served;
  for (int admissions = 1; admissions <= 3 * Scheduler::kAdmissionsPerTurn; ++admissions) {
    jobs.add("urgent", 10, -100);
    jobs.add("urgent", 10, -100);  // ever more of them
    const JobId job = jobs.run();
    if (job <= 3) served.push_back(job);
    EXPECT_EQ(job <= 3, admissions % Scheduler::kAdmissionsPerTurn == 0);
  }
  EXPECT_THAT(served, testing::ElementsAreArray(low));
}

TEST(Fairness, ABigJobIsNotKeptWaitingByUrgentSmallOnes) {
  Scheduler scheduler(kMany);
  scheduler.enqueue(1, {.steady_pages = 50, .peak_pages = 50, .prefill_work = 1});
  scheduler.enqueue(2, {.steady_pages = 90, .peak_pages = 90, .prefill_work = 1}, {.owner = "b", .priority = 7});
  scheduler.admit();
  int passed = 0;
  for (JobId id = 3; id < 1000; ++id) {
    scheduler.enqueue(id, prompt(1), {.owner = "a", .priority = -1});
    for (const JobId admitted : scheduler.admit()) {
      ++passed;
      scheduler.remove(admitted);
    }
  }
  EXPECT_LE(passed, Scheduler::kMaxOvertakes + Scheduler::kAdmissionsPerTurn);
  scheduler.remove(1);
  EXPECT_THAT(scheduler.admit(), testing::Contains(2u));
}

// How many of the next `count` units each prompt has.
std::map<JobId, int> run_units(Scheduler& scheduler, int count) {
  std::map<JobId, int> units;
  for (int i = 0; i < count; ++i) {
    const JobId job = *scheduler.next_prefill();
    scheduler.prefill_progress(job, 1);
    ++units[job];
  }
  return units;
}

TEST(Fairness, UnitsOfPromptsAreSharedTheSameWay) {
  Scheduler scheduler(kMany);
  scheduler.enqueue(1, prompt(100), {.owner = "a"});
  scheduler.enqueue(2, prompt(100), {.owner = "b"});
  scheduler.admit();
  std::map<JobId, int> units = run_units(scheduler, 40);
  EXPECT_EQ(units[1], 20);
  EXPECT_EQ(units[2], 20);
}

TEST(Fairness, AnUrgentPromptIsReadFirstButForTheOldestsTurn) {
  Scheduler scheduler(kMany);
  scheduler.enqueue(1, prompt(100), {.owner = "a", .priority = 1});
  scheduler.enqueue(2, prompt(1000), {.owner = "b", .priority = 0});
  scheduler.admit();
  std::map<JobId, int> units = run_units(scheduler, 40);
  EXPECT_EQ(units[1], 40 / Scheduler::kUnitsPerTurn);
}

TEST(Fairness, AComparisonTakesAPlaceForEveryRow) {
  Scheduler::Limits limits = kMany;
  limits.max_running = 6;
  JobCost comparison = prompt(1);
  comparison.rows = 5;
  Scheduler scheduler(limits);
  for (JobId id = 1; id <= 3; ++id) scheduler.enqueue(id, id == 2 ? prompt(1) : comparison);
  EXPECT_THAT(scheduler.admit(), ElementsAre(1, 2));
  EXPECT_EQ(scheduler.room().free_rows, 0);
  scheduler.remove(1);
  EXPECT_THAT(scheduler.admit(), ElementsAre(3));
  comparison.rows = 7;
  EXPECT_FALSE(Scheduler::fits_ever(comparison, limits));
}

// The same through an engine: what its sinks are told.
class EngineFairness : public testing::Test {
 protected:
  // Submits all of them while the first holds the engine, and returns them as they started.
  std::vector<std::string> order_of(const std::vector<JobClaim>& claims) {
    EngineOptions options = small_options();
    options.max_running = 1;
    const auto engine = make_engine(*tiny_.model, options);
    std::vector<std::string> order;
    std::vector<std::shared_ptr<RecordingSink>> sinks;
    Gate gate;
    for (const JobClaim& claim : claims) {
      sinks.push_back(std::make_shared<RecordingSink>());
      const bool first = sinks.size() == 1;
      sinks.back()->at_start = [&order, &gate, claim, first] {
        order.push_back(claim.owner + std::to_string(claim.priority));
        if (first) gate.pass();
      };
      EXPECT_TRUE(prepare_and_submit(*engine, make_request(random_prompt(20, 1), 3), sinks.back(), claim).ok());
      if (first) gate.wait_for_guest();
    }
    gate.open();
    for (const auto& sink : sinks) sink->wait();
    return order;
  }
  TinyModel tiny_ = make_tiny_model();
};

TEST_F(EngineFairness, ClaimsDecideTheOrder) {
  EXPECT_THAT(order_of({{"a", 0}, {"a", 0}, {"a", 0}, {"a", 0}, {"b", 0}, {"b", 0}, {"c", 9}, {"c", -9}}),
              ElementsAre("a0", "c-9", "b0", "a0", "b0", "a0", "a0", "c9"));
}

TEST_F(EngineFairness, AComparisonThatNeverFitsNamesTheLimit) {
  EngineOptions options = small_options();
  options.max_running = 4;
  const auto engine = make_engine(*tiny_.model, options);
  const auto request = make_request(random_prompt(50, 1), 3);
  request->compare_with = {policy(PolicyKind::kSnapKv, 20)};
  EXPECT_EQ(engine->estimate(query_of(*request))->cost.rows, 3);
  request->compare_with.push_back(policy(PolicyKind::kH2o, 20));
  const std::optional<Refusal> refusal = refusal_of(engine->prepare(request).status());
  ASSERT_TRUE(refusal);
  EXPECT_EQ(refusal->reason, Refusal::Reason::kRows);
  EXPECT_EQ(refusal->rows, 5u);
  EXPECT_EQ(refusal->max_running, 4u);
}

}  // namespace
}  // namespace pkv::test
