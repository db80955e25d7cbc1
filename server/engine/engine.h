// Owns the thread that owns scheduler, cache and model: takes requests from any thread, steps until they are done, and
// tells their sinks. An admitted request has its cache memory reserved and never fails for lack of it.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/engine/contract.h"
#include "server/engine/engine_options.h"
#include "server/engine/request_result.h"
#include "server/engine/stats.h"
#include "server/model/model.h"

namespace pkv {

class Engine {
 public:
  enum class State : uint8_t { kServing, kDraining, kFailed, kStopped };

  // `model` must outlive the engine, and its backend serves this engine alone: a backend has one caller at a time.
  // INVALID_ARGUMENT where an option is out of range, RESOURCE_EXHAUSTED where pool or scratch cannot be had, the
  // backend's status() where it has failed already.
  static absl::StatusOr<std::unique_ptr<Engine>> create(const Model& model, const EngineOptions& options);
  virtual ~Engine() = default;

  // Thread-safe, no model work: what a request would need, from the code that prepares it. Errors as
  // ContractRules::contract().
  virtual absl::StatusOr<Contract> estimate(const Contract::Query& query) const = 0;
  // Thread-safe: whether a request with this contract would be admitted at once.
  virtual bool has_room(const Contract& contract) const = 0;
  // Thread-safe: what reading the prompt of a request with this contract takes at least, alone and at the best rate
  // that was measured lately. Zero: none was.
  virtual absl::Duration least_prompt_time(const Contract& contract) const = 0;
  // Thread-safe, no model work: the request with its contract. Errors as ContractRules::prepare():
  //   INVALID_ARGUMENT     policy, budget, pins or tokens (field_error_of()); more positions than the model has
  //   FAILED_PRECONDITION  can never fit the pool, the workspace limit or its own budget in bytes (refusal_of())
  virtual absl::StatusOr<Prepared> prepare(std::shared_ptr<const Request> request) const = 0;

  // Thread-safe; returns at once. `prepared` by this engine; `claim` says who goes first. On success the sink will get
  // exactly one on_end or on_error. Otherwise the sink is never called:
  //   RESOURCE_EXHAUSTED   the queue is full
  //   UNAVAILABLE          draining, stopped or failed
  // An admitted request may still end with FAILED_PRECONDITION where its min_recall is out of reach
  // (recall_shortfall()).
  virtual absl::Status submit(Prepared prepared, const JobClaim& claim, std::shared_ptr<TokenSink> sink) = 0;
  // Thread-safe. The request's sink gets CANCELLED and its pages are back within one step. Unknown or finished: nothing
  // happens. Identified by its sink, since request ids are the callers' and need not be unique.
  virtual void cancel(const TokenSink* sink) = 0;

  // Thread-safe: takes no new requests from now on (UNAVAILABLE).
  virtual void close() = 0;
  // close(); returns when all are done or at the deadline, after which the rest is cancelled
  // (UNAVAILABLE). That takes a step; false: abort_time after the deadline they are still there. The engine then hangs,
  // and its destructor would too.
  virtual bool drain(absl::Time deadline) = 0;
  virtual State state() const = 0;
  // INTERNAL with the cause where the state is kFailed: the backend failed (Backend::status()), or a step threw an
  // exception, a lack of memory for one. Whoever was admitted then got this, whoever waited UNAVAILABLE, and nothing is
  // computed any more. OK otherwise.
  virtual absl::Status failure() const = 0;
  // How long the engine has had work without a sign of life: it gives one before and in every step. Zero: it is idle.
  virtual absl::Duration stalled_for() const = 0;
  virtual std::shared_ptr<const EngineStats> stats() const = 0;  // thread-safe; the latest snapshot
  virtual const EngineOptions& options() const = 0;
};

}  // namespace pkv
