// From a request to its contract: the policy with its footprint, workspace and the figures of Engine::check(). One
// piece of code for submission and estimate. Immutable, so any thread may use it.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/engine/engine.h"
#include "server/engine/request.h"
#include "server/engine/scheduler.h"
#include "server/model/model.h"
#include "server/policy/cache_plan.h"
#include "server/policy/policy.h"

namespace pkv {

struct PolicyTerms {
  std::unique_ptr<CachePolicy> policy;
  CachePlan plan;
};

struct Contract {
  PolicyTerms own;
  std::vector<PolicyTerms> rivals;  // one per policy of Request::compare_with
  Footprint footprint;              // of all of them together
  Admission figures;
};

class AdmissionRules {
 public:
  AdmissionRules(const ModelShape& shape, const CacheGeometry& geometry, const SchedulerLimits& limits)
      : shape_(shape), geometry_(geometry), limits_(limits) {}

  // INVALID_ARGUMENT for a policy, budget or pins that cannot be, or a length beyond the model's. All figures but
  // admissible_now.
  absl::StatusOr<Contract> resolve(const Engine::Query& query) const;
  // INVALID_ARGUMENT for an empty prompt or a token outside the vocabulary.
  absl::Status check_tokens(const Request& request) const;
  // FAILED_PRECONDITION with the figures where the contract can never be kept.
  absl::Status check_fits(const Contract& contract) const;
  // What the scheduler is to know; `rows` of the prompt, whose own log-probabilities are wanted or not.
  JobCost cost(const Contract& contract, int64_t rows, bool scores_prompt) const;

 private:
  absl::Status check_length(const PolicySpec& spec, const CachePlan& plan, const Engine::Query& query) const;
  absl::StatusOr<PolicyTerms> terms(const PolicySpec& spec, const Engine::Query& query) const;
  Footprint footprint(const Contract& contract, const Engine::Query& query) const;
  uint64_t workspace_bytes(const Contract& contract, const Engine::Query& query) const;
  PlanInput plan_input(const CachePolicy& policy, const PolicySpec& spec, const Engine::Query& query) const;

  const ModelShape& shape_;
  CacheGeometry geometry_;
  SchedulerLimits limits_;
};

// The output head's work for one row in units of one layer's, at least 1: what a prompt's own log-probabilities cost.
int64_t head_work_layers(const ModelShape& shape);

}  // namespace pkv
