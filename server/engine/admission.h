// From a request to its contract: the policy with its footprint, workspace and the figures of Engine::check(). One
// piece of code for submission and estimate. Immutable, so any thread may use it.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/engine/engine.h"
#include "server/engine/request.h"
#include "server/engine/scheduler.h"
#include "server/model/model.h"
#include "server/policy/footprint.h"
#include "server/policy/policy.h"

namespace pkv {

struct Contract {
  std::unique_ptr<CachePolicy> policy;
  Footprint footprint;
  Admission figures;
};

class AdmissionRules {
 public:
  AdmissionRules(const ModelShape& shape, const CacheGeometry& geometry, const SchedulerLimits& limits)
      : shape_(shape), geometry_(geometry), limits_(limits) {}

  // INVALID_ARGUMENT for a policy or budget that cannot be, or a length beyond the model's.
  absl::StatusOr<Contract> resolve(const PolicySpec& spec, int32_t prompt_tokens, int32_t max_tokens) const;
  // INVALID_ARGUMENT for an empty prompt or a token outside the vocabulary.
  absl::Status check_tokens(const Request& request) const;
  // FAILED_PRECONDITION with the figures where the contract can never be kept.
  absl::Status check_fits(const Contract& contract) const;
  // What the scheduler is to know.
  JobCost cost(const Contract& contract, const Request& request) const;

 private:
  Footprint footprint(const CachePolicy& policy, KvDtype dtype, int32_t prompt_tokens, int32_t max_tokens) const;
  uint64_t workspace_bytes(const CachePolicy& policy, int32_t prompt_tokens) const;
  int32_t largest_budget(const PolicySpec& spec, int32_t smallest, int32_t prompt_tokens, int32_t max_tokens) const;

  const ModelShape& shape_;
  CacheGeometry geometry_;
  SchedulerLimits limits_;
};

// The output head's work for one row in units of one layer's, at least 1: what a prompt's own log-probabilities cost.
int64_t head_work_layers(const ModelShape& shape);

}  // namespace pkv
