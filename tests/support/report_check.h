// Holds a request's cache report against what it was promised: budgets, entries that are never evicted, and every byte.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "server/engine/contract.h"
#include "server/engine/request_result.h"
#include "server/model/model.h"
#include "server/policy/policy_spec.h"

namespace pkv::test {

struct ReportCase {
  const ModelShape& shape;
  int32_t page_bytes = 0;
  const PolicySpec& spec;
  int32_t prompt_tokens = 0;
  const Contract& promised;  // of this policy alone
  bool whole_answer = true;  // max_tokens were generated, so that bytes are those promised and not fewer
  bool own_division = true;  // of the budget among lanes: the policy's, not a test's (shaped_policy.h)
};

// What does not hold, in words; empty where all is well. The report has positions.
std::vector<std::string> report_violations(const ReportCase& reported, const CacheReport& report);

// Newest entries that a policy never evicts at an average budget of `budget`, and first ones (docs/policies.md).
int32_t window_of(const PolicySpec& spec, int32_t budget);
int32_t sinks_of(const PolicySpec& spec);

}  // namespace pkv::test
