// Why a request can never be served: typed, with the figures. Made with the contract; the edge puts it into words.
#pragma once

#include <cstdint>
#include <optional>

#include "absl/status/status.h"

namespace pkv {

struct Refusal {
  enum class Reason : uint8_t {
    kLength,     // prompt and answer use more positions than the model has
    kBudget,     // not even the policy's smallest budget stays within the bytes asked for
    kWorkspace,  // what the prompt and the policy need beside the cache is more than there is
    kPool,       // the cache would be larger than the pool
    kRows,       // a comparison has more rows of a step than may run at once
  };
  Reason reason = Reason::kPool;
  // kLength only.
  uint64_t positions = 0;
  uint64_t max_positions = 0;
  // kRows only.
  uint64_t rows = 0;
  uint64_t max_running = 0;
  // All others. Bytes of the cache at its peak, and of the pool; beside the cache while the prompt is read, of what
  // decides evictions, and the limit of both together.
  uint64_t peak_bytes = 0;
  uint64_t pool_bytes = 0;
  uint64_t workspace_bytes = 0;
  uint64_t state_bytes = 0;
  uint64_t workspace_limit_bytes = 0;
  // The policy's own minimum for this request, with which the least is held, and the peak it has then. 0: the policy
  // takes no budget.
  uint64_t smallest_budget_tokens = 0;
  uint64_t smallest_budget_bytes = 0;
  // The largest budget with which the pool would do. 0: none, or it takes no budget.
  uint64_t largest_budget_tokens = 0;
};

// INVALID_ARGUMENT for a length, FAILED_PRECONDITION for the others; and what such a status says, nothing for any
// other.
absl::Status refused(const Refusal& refusal);
std::optional<Refusal> refusal_of(const absl::Status& status);

}  // namespace pkv
