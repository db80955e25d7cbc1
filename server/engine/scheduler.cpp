// Admission by reservation and the choice of the next prefill unit.
#include "server/engine/scheduler.h"

#include <algorithm>
#include <functional>

#include "kernels/check.h"

namespace pkv {

bool Scheduler::fits_ever(const JobCost& cost, const Limits& limits) {
  return cost.peak_pages <= limits.pool_pages && cost.workspace_bytes + cost.state_bytes <= limits.workspace_bytes;
}

bool Scheduler::Room::admits(const JobCost& cost) const {
  const uint64_t surplus = cost.peak_pages - cost.steady_pages;
  const uint64_t further = surplus - std::min(surplus, smallest_surplus_pages);
  const uint64_t workspace = std::max(largest_workspace_bytes, cost.workspace_bytes);
  return has_place && reserved_pages + cost.steady_pages + further <= pool_pages &&
         state_bytes + cost.state_bytes + workspace <= workspace_limit_bytes;
}

void Scheduler::enqueue(JobId id, const JobCost& cost) {
  PKV_CHECK(fits_ever(cost, limits_), "a job that never fits was queued");
  PKV_CHECK(cost.peak_pages >= cost.steady_pages, "a peak below the steady state");
  PKV_CHECK(waiting_.empty() || waiting_.back().id < id, "job ids must ascend");
  waiting_.push_back({.id = id, .cost = cost, .work_left = cost.prefill_work});
}

Scheduler::Room Scheduler::room() const {
  Room room{.has_place = static_cast<int32_t>(admitted_.size()) < limits_.max_running,
            .pool_pages = limits_.pool_pages,
            .workspace_limit_bytes = limits_.workspace_bytes};
  std::vector<uint64_t> surplus;
  for (const Job& job : admitted_) {
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

std::vector<JobId> Scheduler::admit() {
  std::vector<JobId> result;
  if (waiting_.empty()) return result;
  Room room = this->room();
  for (auto job = waiting_.begin(); job != waiting_.end();) {
    if (!room.has_place) break;
    if (room.admits(job->cost)) {
      for (auto passed = waiting_.begin(); passed != job; ++passed) ++passed->overtaken;
      admitted_.push_back(*job);
      result.push_back(job->id);
      job = waiting_.erase(job);
      room = this->room();
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
