// Admission by reservation and the choice of the next prefill unit.
#include "server/engine/scheduler.h"

#include <algorithm>
#include <functional>

#include "kernels/check.h"

namespace pkv {

bool Scheduler::fits_ever(const JobCost& cost, const SchedulerLimits& limits) {
  return cost.peak_pages <= limits.pool_pages && cost.workspace_bytes <= limits.workspace_bytes;
}

bool Scheduler::would_admit(const JobCost& cost) const {
  const Job job{.cost = cost};
  return static_cast<int32_t>(admitted_.size()) < limits_.max_running && reserved_with(&job) <= limits_.pool_pages;
}

void Scheduler::enqueue(JobId id, const JobCost& cost) {
  PKV_CHECK(fits_ever(cost, limits_), "a job that never fits was queued");
  PKV_CHECK(cost.peak_pages >= cost.steady_pages, "a peak below the steady state");
  PKV_CHECK(waiting_.empty() || waiting_.back().id < id, "job ids must ascend");
  waiting_.push_back({.id = id, .cost = cost, .work_left = cost.prefill_work});
}

// Pages reserved by the admitted jobs, and by `candidate` if it were one of them.
uint64_t Scheduler::reserved_with(const Job* candidate) const {
  uint64_t steady = 0;
  std::vector<uint64_t> surplus;
  const auto add = [&](const Job& job) {
    steady += job.cost.steady_pages;
    if (job.stage != Stage::kPrefilled) surplus.push_back(job.cost.peak_pages - job.cost.steady_pages);
  };
  for (const Job& job : admitted_) add(job);
  if (candidate != nullptr) add(*candidate);
  std::sort(surplus.begin(), surplus.end(), std::greater<>());
  const size_t largest = std::min(surplus.size(), static_cast<size_t>(limits_.concurrent_prefills));
  for (size_t i = 0; i < largest; ++i) steady += surplus[i];
  return steady;
}

std::vector<JobId> Scheduler::admit() {
  std::vector<JobId> result;
  for (auto job = waiting_.begin(); job != waiting_.end();) {
    if (static_cast<int32_t>(admitted_.size()) >= limits_.max_running) break;
    if (reserved_with(&*job) <= limits_.pool_pages) {
      for (auto passed = waiting_.begin(); passed != job; ++passed) ++passed->overtaken;
      admitted_.push_back(*job);
      result.push_back(job->id);
      job = waiting_.erase(job);
      // A job that was passed may have reached its limit by this.
      if (std::any_of(waiting_.begin(), job, [](const Job& passed) { return passed.overtaken >= kMaxOvertakes; }))
        break;
    } else if (job->overtaken >= kMaxOvertakes) {
      break;
    } else {
      ++job;
    }
  }
  return result;
}

uint64_t Scheduler::workspace_bytes() const {
  uint64_t bytes = 0;
  for (const Job& job : admitted_) {
    if (job.stage == Stage::kUnderWay) bytes += job.cost.workspace_bytes;
  }
  return bytes;
}

bool Scheduler::may_run(const Job& job) const {
  if (job.stage != Stage::kAdmitted) return job.stage == Stage::kUnderWay;
  const auto under_way = std::count_if(admitted_.begin(), admitted_.end(),
                                       [](const Job& other) { return other.stage == Stage::kUnderWay; });
  return under_way < limits_.concurrent_prefills &&
         workspace_bytes() + job.cost.workspace_bytes <= limits_.workspace_bytes;
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
      const bool shorter = chosen == nullptr || job.work_left < chosen->work_left ||
                           (job.work_left == chosen->work_left && job.id < chosen->id);
      if (shorter) chosen = &job;
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

void Scheduler::prefill_progress(JobId id, int64_t work) { admitted_job(id).work_left -= work; }

void Scheduler::prefill_done(JobId id) { admitted_job(id).stage = Stage::kPrefilled; }

void Scheduler::remove(JobId id) {
  const auto is_job = [&](const Job& job) { return job.id == id; };
  std::erase_if(waiting_, is_job);
  std::erase_if(admitted_, is_job);
}

}  // namespace pkv
