// Admission by reservation and the choice of the next prefill unit.
#include "server/engine/scheduler.h"

#include <algorithm>
#include <functional>
#include <tuple>

#include "kernels/check.h"

namespace pkv {

bool Scheduler::fits_ever(const JobCost& cost, const Limits& limits) {
  return cost.rows <= limits.max_running && cost.peak_pages <= limits.pool_pages &&
         cost.workspace_bytes + cost.state_bytes <= limits.workspace_bytes;
}

bool Scheduler::Room::admits(const JobCost& cost) const {
  const uint64_t surplus = cost.peak_pages - cost.steady_pages;
  const uint64_t further = surplus - std::min(surplus, smallest_surplus_pages);
  const uint64_t workspace = std::max(largest_workspace_bytes, cost.workspace_bytes);
  return cost.rows <= free_rows && reserved_pages + cost.steady_pages + further <= pool_pages &&
         state_bytes + cost.state_bytes + workspace <= workspace_limit_bytes;
}

void Scheduler::enqueue(JobId id, const JobCost& cost, const JobClaim& claim) {
  PKV_CHECK(fits_ever(cost, limits_), "a job that never fits was queued");
  PKV_CHECK(cost.peak_pages >= cost.steady_pages, "a peak below the steady state");
  PKV_CHECK(waiting_.empty() || waiting_.back().id < id, "job ids must ascend");
  waiting_.push_back({.id = id,
                      .cost = cost,
                      .owner = claim.owner,
                      .priority = claim.priority,
                      .account = &accounts_.join(claim.owner),
                      .work_left = cost.prefill_work});
  none_fits_ = false;
}

Scheduler::Room Scheduler::room() const {
  Room room{.free_rows = limits_.max_running,
            .pool_pages = limits_.pool_pages,
            .workspace_limit_bytes = limits_.workspace_bytes};
  std::vector<uint64_t> surplus;
  for (const Job& job : admitted_) {
    room.free_rows -= job.cost.rows;
    room.reserved_pages += job.cost.steady_pages;
    room.state_bytes += job.cost.state_bytes;
    if (job.stage == Stage::kPrefilled) continue;
    surplus.push_back(job.cost.peak_pages - job.cost.steady_pages);
    room.largest_workspace_bytes = std::max(room.largest_workspace_bytes, job.cost.workspace_bytes);
  }
  std::sort(surplus.begin(), surplus.end(), std::greater<>());
  const auto most = static_cast<size_t>(limits_.concurrent_prefills);
  surplus.resize(std::min(surplus.size(), most));
  for (const uint64_t pages : surplus) room.reserved_pages += pages;
  if (surplus.size() == most) room.smallest_surplus_pages = surplus.back();
  return room;
}

int32_t Scheduler::best_priority() const { return std::ranges::min_element(waiting_, {}, &Job::priority)->priority; }

Scheduler::Job* Scheduler::outranked() {
  if (waiting_.empty()) return nullptr;
  const int32_t best = best_priority();
  const auto key = [](const Job& job) { return std::tuple(job.account->with_promises(), job.id); };
  Job* first = nullptr;
  for (Job& job : waiting_) {
    if (job.priority > best && (first == nullptr || key(job) < key(*first))) first = &job;
  }
  return first;
}

std::vector<Scheduler::Job*> Scheduler::admission_order() {
  const Job* turn = admissions_since_turn_ >= kAdmissionsPerTurn - 1 ? outranked() : nullptr;
  const auto key = [turn](const Job* job) {
    const bool passed_enough = job->overtaken >= kMaxOvertakes;
    return passed_enough ? std::tuple(0, 0, int64_t{0}, job->id)
                         : std::tuple(job == turn ? 1 : 2, job->priority, job->account->with_promises(), job->id);
  };
  std::vector<Job*> order;
  for (Job& job : waiting_) order.push_back(&job);
  std::ranges::sort(order, {}, key);
  return order;
}

void Scheduler::admit_job(const Job* job) {
  job->account->promised += job->work_left;
  const bool had_its_turn = job->priority > best_priority();
  const bool outranks = std::ranges::any_of(waiting_, [&](const Job& other) { return other.priority > job->priority; });
  admissions_since_turn_ = outranks && !had_its_turn ? admissions_since_turn_ + 1 : 0;
  admitted_.push_back(*job);
  waiting_.erase(waiting_.begin() + (job - waiting_.data()));
}

std::vector<JobId> Scheduler::admit() {
  std::vector<JobId> result;
  while (!none_fits_) {
    const std::vector<Job*> order = admission_order();
    const size_t first = first_that_fits(order);
    none_fits_ = first == order.size();
    if (none_fits_) break;
    for (size_t passed = 0; passed < first; ++passed) ++order[passed]->overtaken;
    result.push_back(order[first]->id);
    admit_job(order[first]);
  }
  return result;
}

size_t Scheduler::first_that_fits(std::span<Job* const> order) {
  const Room room = this->room();
  for (size_t i = 0; i < order.size(); ++i) {
    ++looked_at_;
    if (room.admits(order[i]->cost)) return i;
    if (order[i]->overtaken >= kMaxOvertakes) break;
  }
  return order.size();
}

uint64_t Scheduler::workspace_bytes() const {
  uint64_t bytes = 0;
  for (const Job& job : admitted_) {
    if (job.stage == Stage::kUnderWay) bytes += job.cost.workspace_bytes;
  }
  return bytes;
}

uint64_t Scheduler::state_bytes() const {
  uint64_t bytes = 0;
  for (const Job& job : admitted_) {
    if (job.stage != Stage::kAdmitted) bytes += job.cost.state_bytes;
  }
  return bytes;
}

bool Scheduler::may_run(const Job& job) const {
  if (job.stage != Stage::kAdmitted) return job.stage == Stage::kUnderWay;
  const auto under_way = std::count_if(admitted_.begin(), admitted_.end(),
                                       [](const Job& other) { return other.stage == Stage::kUnderWay; });
  return under_way < limits_.concurrent_prefills &&
         workspace_bytes() + job.cost.workspace_bytes + state_bytes() + job.cost.state_bytes <= limits_.workspace_bytes;
}

bool Scheduler::goes_before(const Job& a, const Job& b) {
  const auto key = [](const Job& job) { return std::tuple(job.priority, job.account->had, job.work_left, job.id); };
  return key(a) < key(b);
}

std::optional<JobId> Scheduler::next_prefill() {
  Job* oldest = nullptr;  // of all whose prompt is not done
  for (Job& job : admitted_) {
    if (job.stage != Stage::kPrefilled && (oldest == nullptr || job.id < oldest->id)) oldest = &job;
  }
  if (oldest == nullptr) return std::nullopt;
  const bool oldest_due = units_since_oldest_ >= kUnitsPerTurn - 1;
  Job* chosen = oldest_due && may_run(*oldest) ? oldest : nullptr;
  if (chosen == nullptr) {
    for (Job& job : admitted_) {
      // Nobody starts while the oldest is due and waits for a place or for workspace: those under way make room.
      if (job.stage == Stage::kPrefilled || !may_run(job) || (oldest_due && job.stage == Stage::kAdmitted)) continue;
      if (chosen == nullptr || goes_before(job, *chosen)) chosen = &job;
    }
  }
  PKV_CHECK(chosen != nullptr, "prompts are waiting and none may run");
  units_since_oldest_ = chosen == oldest ? 0 : units_since_oldest_ + 1;
  chosen->stage = Stage::kUnderWay;
  return chosen->id;
}

Scheduler::Job& Scheduler::admitted_job(JobId id) {
  const auto found = std::find_if(admitted_.begin(), admitted_.end(), [&](const Job& job) { return job.id == id; });
  PKV_CHECK(found != admitted_.end(), "no such job was admitted");
  return *found;
}

int64_t Scheduler::promised(const Job& job) {
  return job.stage == Stage::kPrefilled ? 0 : std::max<int64_t>(0, job.work_left);
}

void Scheduler::prefill_progress(JobId id, int64_t work) {
  Job& job = admitted_job(id);
  job.account->promised -= promised(job);
  job.work_left -= work;
  job.account->had += work;
  job.account->promised += promised(job);
}

void Scheduler::prefill_done(JobId id) {
  Job& job = admitted_job(id);
  job.account->promised -= promised(job);
  job.stage = Stage::kPrefilled;
  none_fits_ = false;
}

void Scheduler::remove(JobId id) {
  none_fits_ = false;
  const auto is_job = [&](const Job& job) { return job.id == id; };
  if (const auto job = std::ranges::find_if(admitted_, is_job); job != admitted_.end()) {
    job->account->promised -= promised(*job);
    accounts_.leave(job->owner);
    admitted_.erase(job);
  } else if (const auto waiting = std::ranges::find_if(waiting_, is_job); waiting != waiting_.end()) {
    accounts_.leave(waiting->owner);
    waiting_.erase(waiting);
  }
}

}  // namespace pkv
