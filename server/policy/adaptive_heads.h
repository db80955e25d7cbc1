// What ada_snapkv and ada_pyramidkv share: the heads of a layer have its entries together, and get them by their scores
// (Ada-KV, arXiv 2407.11550, section 4).
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "server/policy/policy.h"

namespace pkv {

// The window policies' checks, and that of `floor`. `policy` is the policy's field in the proto message CachePolicy.
absl::Status validate_adaptive_policy(std::string_view policy, const PolicySpec& spec);

// The layers' totals for average lanes of layer_budgets[l] entries: of them every head keeps the window and the share
// `floor` of what an average head has beside it; all else goes to the best scores of the layer.
std::vector<LayerTotal> adaptive_totals(std::span<const int32_t> layer_budgets, int32_t tokens, int32_t kv_heads,
                                        const PolicyParams& params);

}  // namespace pkv
