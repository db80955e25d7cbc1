// Decides which request may start and whose prompt goes on. Knows requests as the pages and bytes they reserve and the
// work that is left of their prompts: no model, no cache, no clock. Owned by the engine thread.
//
// Memory. An admitted job reserves its steady pages; beside them lie reserved the k largest (peak - steady) of the jobs
// whose prompt is not done, k = concurrent_prefills, since no more than k prompts are ever under way. So the sum of
// what is held never exceeds the pool, and no admitted job fails for lack of pages. Workspace and state share a limit
// of their own: the state of all admitted jobs lies reserved in it beside the largest workspace of those whose prompt
// is not done, so that one prompt can always go on; a further one starts where its workspace is free.
//
// Admission. The lower priority goes first; among equal ones the owner who has had least of the engine
// (ServiceAccounts; what was promised to its admitted jobs counts as had), and of one owner's the oldest job. Where the
// first does not fit, later ones that do may pass it, but only kMaxOvertakes of them; then nobody is admitted before
// it. Priorities age: of kAdmissionsPerTurn admissions in a row at least one belongs to those whom a better priority
// keeps waiting.
//
// Prefill. In the same order, but by what owners have had, and of one owner's the prompt with the least work left goes
// first, the older of two equal ones; at most k are under way, so with k = 2 a short prompt overtakes a long one.
// Ageing: of kUnitsPerTurn units in a row at least one belongs to the oldest unfinished prompt; where it has no place
// or no workspace yet, nobody else starts until it has. So nothing slows a prompt down by more than a bounded factor.
//
// Ageing counts admissions and units instead of seconds: it needs no clock and does not depend on the machine.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "server/engine/service_accounts.h"

namespace pkv {

using JobId = uint64_t;  // ascending in the order of submission

struct JobCost {
  uint64_t steady_pages = 0;     // once the prompt is done, until the end
  uint64_t peak_pages = 0;       // at any instant; >= steady_pages
  uint64_t workspace_bytes = 0;  // from the start of its prefill to its end
  uint64_t state_bytes =
      0;  // of what decides evictions and edits logits, from the start of its prefill until the job ends
  int64_t prefill_work = 0;  // multiply-adds of its prompt, about
  int32_t rows = 1;          // of a decode step, at most
};

// Who goes first where not all can.
struct JobClaim {
  std::string owner;  // whose it is: owners share the engine, however many jobs each has
  int32_t priority = 0;
};

class Scheduler {
 public:
  static constexpr int32_t kMaxOvertakes = 16;
  static constexpr int32_t kAdmissionsPerTurn = 8;
  static constexpr int32_t kUnitsPerTurn = 4;

  struct Limits {
    uint64_t pool_pages = 0;
    uint64_t workspace_bytes = 0;  // of workspace and state together
    int32_t max_running = 0;       // rows of a decode step
    int32_t concurrent_prefills = 0;
  };

  // What admission looks at, by itself: so that others can ask without the scheduler.
  struct Room {
    int32_t free_rows = 0;  // of max_running
    uint64_t pool_pages = 0;
    uint64_t reserved_pages = 0;
    // The smallest surplus (peak - steady) among those reserved, where there are as many as there may be: a job's own
    // counts beyond it.
    uint64_t smallest_surplus_pages = 0;
    uint64_t workspace_limit_bytes = 0;
    uint64_t state_bytes = 0;
    uint64_t largest_workspace_bytes = 0;  // of those whose prompt is not done

    // Whether a job would be admitted at once if nobody waited before it.
    bool admits(const JobCost& cost) const;
  };

  explicit Scheduler(const Limits& limits) : limits_(limits) {}

  // Whether a job could run if it were alone.
  static bool fits_ever(const JobCost& cost, const Limits& limits);

  Room room() const;

  // `id` greater than any before; the job fits_ever().
  void enqueue(JobId id, const JobCost& cost, const JobClaim& claim = {});
  // Moves every waiting job that may be admitted now to the admitted ones and returns them in order.
  std::vector<JobId> admit();
  // The job whose prefill unit is to run next; from the first time on it is under way and holds its workspace.
  std::optional<JobId> next_prefill();
  // A unit of `work` of the job was done.
  void prefill_progress(JobId id, int64_t work);
  // A step of the job's answer, of `work`, was done.
  void decode_progress(JobId id, int64_t work) { admitted_job(id).account->had += work; }
  // The job's prompt is done: from now on it holds its steady pages at most, and no workspace.
  void prefill_done(JobId id);
  // The job has ended and holds nothing any more. Whatever its state.
  void remove(JobId id);

  size_t waiting() const { return waiting_.size(); }
  // Waiting jobs that admit() has looked at so far. It looks again only when a job has come, or others hold less.
  uint64_t looked_at() const { return looked_at_; }
  size_t admitted() const { return admitted_.size(); }
  uint64_t reserved_pages() const { return room().reserved_pages; }
  uint64_t workspace_bytes() const;  // held by the prefills under way

 private:
  enum class Stage : uint8_t { kAdmitted, kUnderWay, kPrefilled };
  struct Job {
    JobId id = 0;
    JobCost cost;
    std::string owner;
    int32_t priority = 0;
    ServiceAccounts::Account* account = nullptr;
    int64_t work_left = 0;
    int32_t overtaken = 0;
    Stage stage = Stage::kAdmitted;
  };

  int32_t best_priority() const;  // of those waiting: there is one
  std::vector<Job*> admission_order();
  // Of those whom a better priority keeps waiting, the one whose turn it would be. nullptr: there is none.
  Job* outranked();
  // Nobody fits: their number. Behind one who was overtaken often enough nobody is looked at.
  size_t first_that_fits(std::span<Job* const> order);
  void admit_job(const Job* job);
  static bool goes_before(const Job& a, const Job& b);  // with its next unit
  // Work that the account has promised it.
  static int64_t promised(const Job& job);
  bool may_run(const Job& job) const;  // under way, or free to start
  uint64_t state_bytes() const;        // of those whose prefill has begun
  Job& admitted_job(JobId id);

  Limits limits_;
  ServiceAccounts accounts_;
  std::vector<Job> waiting_;   // in order of submission
  std::vector<Job> admitted_;  // in order of admission
  int32_t units_since_oldest_ = 0;
  int32_t admissions_since_turn_ = 0;  // that kept others waiting by their priority
  bool none_fits_ = true;              // of those waiting, or all that do wait for others' turn
  uint64_t looked_at_ = 0;
};

}  // namespace pkv
