// What one request is promised, computed once and kept from its admission to its report: its policies with the lanes
// each may hold, the bytes of all of them together, what is reserved for them, or why that can never be.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/engine/prompt_work.h"
#include "server/engine/refusal.h"
#include "server/engine/request.h"
#include "server/engine/scheduler.h"
#include "server/engine/sparse_prefill.h"
#include "server/model/model.h"
#include "server/policy/cache_plan.h"
#include "server/policy/registry.h"

namespace pkv {

constexpr int64_t kMaxTextTokens = int64_t{1} << 30;  // prompt and answer, where the model's length is no limit

struct Contract {
  // All of a request that its contract depends on, for whoever has no tokens yet.
  struct Query {
    const PolicySpec& policy;
    int32_t prompt_tokens = 0;
    int32_t max_tokens = 0;
    std::span<const PolicySpec> compare_with;  // as in Request
    bool prompt_logprobs = false;              // as in Request
    int64_t edited_tokens = 0;                 // LogitEdits::most_tokens() of the request
  };
  // One policy of it.
  struct Terms {
    std::unique_ptr<CachePolicy> policy;
    CachePlan plan;
  };

  Terms own;
  std::vector<Terms> rivals;  // one per policy of Request::compare_with
  // Of all of them together: allocated + auxiliary, after the prompt and at any instant, and of a full cache of f16
  // entries at the end.
  uint64_t steady_bytes = 0;
  uint64_t peak_bytes = 0;
  uint64_t full_bytes = 0;
  JobCost cost;  // what the scheduler reserves: pages, workspace, state, rows
  PromptWork work;
  std::optional<Refusal> refusal;  // nothing: alone it would run

  std::optional<SparseShape> sparse;  // nothing: rows attend to everything

  // Whether layers are scored, in tensors of the request's own.
  bool scores_layers() const;
};

Contract::Query query_of(const Request& request);

// A request with the contract that was made for it: what is submitted.
class Prepared {
 public:
  // The refusal (refused()) where the contract has one.
  static absl::StatusOr<Prepared> make(std::shared_ptr<const Request> request, Contract contract);

  const std::shared_ptr<const Request>& request() const { return request_; }
  const Contract& contract() const { return contract_; }
  Contract take_contract() && { return std::move(contract_); }

 private:
  Prepared(std::shared_ptr<const Request> request, Contract contract)
      : request_(std::move(request)), contract_(std::move(contract)) {}

  std::shared_ptr<const Request> request_;
  Contract contract_;
};

// Makes the contracts of one engine. Immutable, so any thread may use it.
class ContractRules {
 public:
  // `shape` must outlive the rules.
  ContractRules(const ModelShape& shape, const CacheGeometry& geometry, const Scheduler::Limits& limits,
                PolicyMaker make_policy = pkv::make_policy, const BackendTraits& traits = {.sparse_attention = true})
      : shape_(shape), geometry_(geometry), limits_(limits), make_policy_(std::move(make_policy)), traits_(traits) {}

  // INVALID_ARGUMENT about the field (FieldError) for a policy, budget or pins that cannot be, or with the refusal for
  // a length beyond the model's; UNIMPLEMENTED about the field for what the backend cannot do. That the engine can
  // never hold it is no error: the contract says so.
  absl::StatusOr<Contract> contract(const Contract::Query& query) const;
  // The same of a whole request, and INVALID_ARGUMENT about the field for a token outside the vocabulary. A contract
  // that can never be kept is refused.
  absl::StatusOr<Prepared> prepare(std::shared_ptr<const Request> request) const;

 private:
  PlanInput plan_input(const CachePolicy& policy, const PolicySpec& spec, const Contract::Query& query) const;
  std::optional<SparseShape> sparse_shape(const Contract::Query& query) const;
  absl::StatusOr<Contract::Terms> terms(const PolicySpec& spec, const Contract::Query& query) const;
  absl::Status check_prefill(const PolicySpec& spec, const PolicySpec& baseline) const;
  void add_cost(const Contract::Query& query, Contract& contract) const;
  std::optional<Refusal> refusal(const Contract::Query& query, const Contract& contract) const;

  const ModelShape& shape_;
  CacheGeometry geometry_;
  Scheduler::Limits limits_;
  PolicyMaker make_policy_;
  BackendTraits traits_;
};

}  // namespace pkv
