// The table of policies: one row each, with what people are told about them.
#include <array>

#include "kernels/check.h"
#include "server/policy/builtin.h"

namespace pkv {
namespace {

constexpr ParameterInfo kWindow{"window_tokens", ">= 1, below the budget", "8",
                                "newest prompt entries, always kept; their queries score the others"};
constexpr ParameterInfo kKernel{"kernel_size", "odd, >= 1", "7", "width in tokens of the pooling of scores"};
constexpr ParameterInfo kPooling{"pooling", "MAX, AVG, NONE", "MAX", "how scores are pooled along tokens"};
constexpr ParameterInfo kAggregation{"group_aggregation", "MEAN, MAX, SUM", "MEAN",
                                     "over the query heads that share a KV head, before pooling"};
constexpr ParameterInfo kBeta{"beta", ">= 1, at most six decimals", "20",
                              "the top layer gets 1/beta of the average beside the window; 1 makes all layers equal"};
constexpr ParameterInfo kAllocation{"allocation", "EXACT, FACTORY", "EXACT",
                                    "EXACT spends the budget exactly; FACTORY is the authors' released integer rule"};

constexpr ParameterInfo kSnapKvParameters[] = {kWindow, kKernel, kPooling, kAggregation};
constexpr ParameterInfo kPyramidKvParameters[] = {kWindow, kKernel, kPooling, kAggregation, kBeta, kAllocation};

constexpr std::array<PolicyRow, 3> kTable{{
    {.kind = PolicyKind::kFull,
     .name = "full",
     .summary = "keeps every entry",
     .source = "",
     .takes_budget = false,
     .parameters = {},
     .validate = validate_full,
     .make = make_full},
    {.kind = PolicyKind::kSnapKv,
     .name = "snapkv",
     .summary = "per layer and KV head the entries the newest queries attend to most, the same number in every layer",
     .source = "SnapKV, arXiv 2404.14469",
     .takes_budget = true,
     .parameters = kSnapKvParameters,
     .validate = validate_snapkv,
     .make = make_snapkv},
    {.kind = PolicyKind::kPyramidKv,
     .name = "pyramidkv",
     .summary = "as snapkv, with more entries in lower layers and fewer in upper ones",
     .source = "PyramidKV, arXiv 2406.02069",
     .takes_budget = true,
     .parameters = kPyramidKvParameters,
     .validate = validate_pyramidkv,
     .make = make_pyramidkv},
}};

}  // namespace

std::span<const PolicyRow> policy_table() { return kTable; }

const PolicyRow& policy_row(PolicyKind kind) {
  for (const PolicyRow& row : kTable) {
    if (row.kind == kind) return row;
  }
  PKV_CHECK(false, "a policy without a row");
}

const PolicyRow* find_policy(std::string_view name) {
  for (const PolicyRow& row : kTable) {
    if (row.name == name) return &row;
  }
  return nullptr;
}

absl::StatusOr<std::unique_ptr<CachePolicy>> make_policy(const PolicySpec& spec) {
  const PolicyRow& row = policy_row(spec.kind);
  if (absl::Status status = row.validate(spec); !status.ok()) return status;
  return row.make(spec);
}

}  // namespace pkv
