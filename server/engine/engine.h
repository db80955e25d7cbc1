// Owns the thread that owns scheduler, cache and model: takes requests from any thread, steps until they are done, and
// tells their sinks. An admitted request has its cache memory reserved and never fails for lack of it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/cache/kv_cache.h"
#include "server/engine/request.h"
#include "server/engine/stats.h"
#include "server/model/model.h"

namespace pkv {

constexpr int64_t kMaxTextTokens = int64_t{1} << 30;  // prompt and answer, where the model's length is no limit

struct EngineOptions {
  uint64_t pool_bytes = uint64_t{512} << 20;
  int32_t page_bytes = 0;  // 0: the backend's choice
  int32_t max_running = 64;
  int32_t max_waiting = 256;
  // Prefill units start at absolute multiples of this; at most step_tokens. 0: the backend's choice.
  int32_t prefill_chunk_rows = 0;
  int32_t step_tokens = 256;  // rows of one run of the model at most: a prefill unit, or decode rows
  int32_t concurrent_prefills = 2;
  uint64_t workspace_bytes = uint64_t{1} << 30;   // residual streams and observed queries of prefills under way
  absl::Duration abort_time = absl::Seconds(10);  // what cancelling the rest may take after a drain's deadline
  std::function<absl::Time()> clock = absl::Now;  // thread-safe
  // Called after every step with the state it left, on the engine thread, before its endings are told; must not block.
  // With it every step makes a snapshot, without it only those that change something and about 20 a second.
  std::function<void(const EngineStats&)> at_step;
};

// What a request would need, before it is submitted.
struct Admission {
  int32_t budget_tokens = 0;
  uint64_t peak_bytes = 0;
  uint64_t steady_bytes = 0;
  uint64_t full_bytes = 0;
  uint64_t pool_bytes = 0;
  uint64_t workspace_bytes = 0;
  uint64_t workspace_limit_bytes = 0;
  std::vector<int32_t> lane_budgets;  // [layers * kv_heads] entries after the prompt
  // The policy's own minimum for this request, with which the least is held, and the peak it has then. 0: the policy
  // takes no budget.
  int32_t smallest_budget_tokens = 0;
  uint64_t smallest_budget_bytes = 0;
  // Where admissible_ever is false: the largest budget with which the pool would do. 0: none, or it takes no budget.
  int32_t largest_budget_tokens = 0;
  bool within_budget = true;     // false: the budget in bytes is below smallest_budget_bytes
  bool admissible_ever = false;  // within its budget, and alone it would run
  bool admissible_now = false;   // it would not have to wait
};

enum class EngineState : uint8_t { kServing, kDraining, kFailed, kStopped };

class Engine {
 public:
  // `model` must outlive the engine, and its backend serves this engine alone: a backend has one caller at a time.
  // INVALID_ARGUMENT where an option is out of range, RESOURCE_EXHAUSTED where pool or scratch cannot be had.
  static absl::StatusOr<std::unique_ptr<Engine>> create(const Model& model, const EngineOptions& options);
  virtual ~Engine() = default;

  // Thread-safe; returns at once. On success the sink will get exactly one on_end or on_error. Otherwise the sink is
  // never called:
  //   INVALID_ARGUMENT     policy, budget or pins, message beginning with the field's path; prompt + max_tokens beyond
  //                        the model's length
  //   FAILED_PRECONDITION  can never fit the pool, the workspace limit or its own budget in bytes: see check()
  //   RESOURCE_EXHAUSTED   the queue is full
  //   UNAVAILABLE          draining, stopped or failed
  // An admitted request may still end with FAILED_PRECONDITION where its min_recall is out of reach
  // (recall_shortfall()).
  virtual absl::Status submit(std::shared_ptr<const Request> request, std::shared_ptr<TokenSink> sink) = 0;
  // Thread-safe. The request's sink gets CANCELLED and its pages are back within one step. Unknown or finished: nothing
  // happens. Identified by its sink, since request ids are the callers' and need not be unique.
  virtual void cancel(const TokenSink* sink) = 0;

  // Thread-safe, no model work: the code path of admission.
  struct Query {
    const PolicySpec& policy;
    int32_t prompt_tokens = 0;
    int32_t max_tokens = 0;
    std::span<const PolicySpec> compare_with;  // as in Request
  };
  virtual absl::StatusOr<Admission> check(const Query& query) const = 0;

  // Takes no new requests; returns when all are done or at the deadline, after which the rest is cancelled
  // (UNAVAILABLE). That takes a step; false: abort_time after the deadline they are still there. The engine then hangs,
  // and its destructor would too.
  virtual bool drain(absl::Time deadline) = 0;
  virtual EngineState state() const = 0;
  // INTERNAL with the cause where the state is kFailed: a step threw an exception, a lack of memory for one. Whoever
  // was admitted then got this, whoever waited UNAVAILABLE, and nothing is computed any more. OK otherwise.
  virtual absl::Status failure() const = 0;
  // How long the engine has had work without a sign of life: it gives one before and in every step. Zero: it is idle.
  virtual absl::Duration stalled_for() const = 0;
  virtual std::shared_ptr<const EngineStats> stats() const = 0;  // thread-safe; the latest snapshot
  virtual const EngineOptions& options() const = 0;
};

}  // namespace pkv
