// The rows, and how one is found.
#include "server/policy/registry.h"

#include <array>

#include "absl/strings/str_join.h"
#include "kernels/check.h"
#include "kernels/status_macros.h"
#include "server/policy/builtin.h"

namespace pkv {
namespace {

constexpr ParameterInfo kObservingWindow{"window_tokens", "1 to 8192, below the budget", "8",
                                         "newest prompt entries, always kept; their queries score the others"};
constexpr ParameterInfo kWindow{"window_tokens", ">= 1, below the budget", "8", "newest entries, always kept"};
constexpr ParameterInfo kSinks{"sink_tokens", ">= 0, below the budget", "4", "first entries, always kept"};
constexpr ParameterInfo kKernel{"kernel_size", "odd, 1 to 1023", "7", "width in tokens of the pooling of scores"};
constexpr ParameterInfo kPooling{"pooling", "MAX, AVG, NONE", "MAX", "how scores are pooled along tokens"};
constexpr ParameterInfo kAggregation{"group_aggregation", "MEAN, MAX, SUM", "MEAN",
                                     "over the query heads that share a KV head, before pooling"};
constexpr ParameterInfo kBeta{"beta", ">= 1, rounded to six decimals", "20",
                              "the top layer gets 1/beta of the average beside the window; 1 makes all layers equal"};
constexpr ParameterInfo kAllocation{"allocation", "EXACT, FACTORY", "EXACT",
                                    "EXACT spends the budget exactly; FACTORY is the authors' released integer rule"};
constexpr ParameterInfo kFloor{"floor", "0 to 1, rounded to six decimals", "0.2",
                               "every head of a layer gets this share of the average beside the window; the best "
                               "scores of all heads get the rest"};
constexpr ParameterInfo kPositionMode{"position_mode", "ORIGINAL, CACHE_RELATIVE", "ORIGINAL",
                                      "ORIGINAL: keys stay rotated by their place in the text; CACHE_RELATIVE: by "
                                      "their place in the cache, as the paper"};
constexpr ParameterInfo kRecent{"recent_tokens", ">= 1, below the budget", "half of the budget",
                                "newest entries, always kept"};
constexpr ParameterInfo kH2oScoring{
    "score", "SUM, MEAN", "SUM", "over queries: their sum, as the paper, or divided by how many could see the entry"};
constexpr ParameterInfo kSeed{"seed", ">= 0", "0", "requests with the same seed draw the same entries"};

constexpr ParameterInfo kWideWindow{"window_tokens", "1 to 8192, below the budget", "32",
                                    "newest prompt entries, always kept; the queries of the newest 8 score the others"};
constexpr ParameterInfo kObservedRows{"observed_rows", "1 to 8192", "256",
                                      "queries from the whole prompt that score too, turned to positions behind it"};
constexpr ParameterInfo kFunnelAllocation{
    "allocation", "TABLE, GLOBAL", "TABLE",
    "TABLE: budgets of heads from the model's lane table; GLOBAL, and the default without a table: from the scores of "
    "all layers"};
constexpr ParameterInfo kRefit{"refit_values", "true, false", "false",
                               "whether kept values are fitted to stand for the dropped ones; TABLE only"};

constexpr ParameterInfo kStreamingLlmParameters[] = {kSinks, kPositionMode};
constexpr ParameterInfo kH2oParameters[] = {kRecent, kH2oScoring};
constexpr ParameterInfo kSnapKvParameters[] = {kObservingWindow, kKernel, kPooling, kAggregation};
constexpr ParameterInfo kPyramidKvParameters[] = {kObservingWindow, kKernel, kPooling,
                                                  kAggregation,     kBeta,   kAllocation};
constexpr ParameterInfo kAdaSnapKvParameters[] = {kObservingWindow, kKernel, kPooling, kAggregation, kFloor};
constexpr ParameterInfo kAdaPyramidKvParameters[] = {kObservingWindow, kKernel, kPooling, kAggregation, kFloor, kBeta};
constexpr ParameterInfo kFunnelParameters[] = {kWideWindow, kSinks, kObservedRows, kFunnelAllocation, kRefit};
constexpr ParameterInfo kKeyParameters[] = {kWindow};
constexpr ParameterInfo kRandomParameters[] = {kSeed, kWindow, kSinks};

constexpr std::array<PolicyRow, 12> kTable{{
    {.kind = PolicyKind::kFull,
     .name = "full",
     .summary = "keeps every entry",
     .source = "",
     .takes_budget = false,
     .observes_attention = false,
     .parameters = {},
     .validate = validate_full,
     .make = make_full},
    {.kind = PolicyKind::kStreamingLlm,
     .name = "streaming_llm",
     .summary = "the first entries and the newest, the same in every layer and KV head",
     .source = "StreamingLLM, arXiv 2309.17453",
     .takes_budget = true,
     .observes_attention = false,
     .parameters = kStreamingLlmParameters,
     .validate = validate_streaming_llm,
     .make = make_streaming_llm},
    {.kind = PolicyKind::kH2o,
     .name = "h2o",
     .summary = "per layer and KV head the entries that all queries so far attended to most, and the newest",
     .source = "H2O, arXiv 2306.14048",
     .takes_budget = true,
     .observes_attention = true,
     .parameters = kH2oParameters,
     .validate = validate_h2o,
     .make = make_h2o},
    {.kind = PolicyKind::kSnapKv,
     .name = "snapkv",
     .summary = "per layer and KV head the entries the newest queries attend to most, the same number in every layer",
     .source = "SnapKV, arXiv 2404.14469",
     .takes_budget = true,
     .observes_attention = true,
     .parameters = kSnapKvParameters,
     .validate = validate_snapkv,
     .make = make_snapkv},
    {.kind = PolicyKind::kPyramidKv,
     .name = "pyramidkv",
     .summary = "as snapkv, with more entries in lower layers and fewer in upper ones",
     .source = "PyramidKV, arXiv 2406.02069",
     .takes_budget = true,
     .observes_attention = true,
     .parameters = kPyramidKvParameters,
     .validate = validate_pyramidkv,
     .make = make_pyramidkv},
    {.kind = PolicyKind::kL2Norm,
     .name = "l2norm",
     .summary = "per layer and KV head the entries with the shortest keys, and the newest",
     .source = "A Simple and Effective L2 Norm-Based Strategy for KV Cache Compression, arXiv 2406.11430",
     .takes_budget = true,
     .observes_attention = false,
     .parameters = kKeyParameters,
     .validate = validate_l2norm,
     .make = make_l2norm},
    {.kind = PolicyKind::kTova,
     .name = "tova",
     .summary = "per layer the positions that the last query attends to most, over all heads, and the newest",
     .source = "TOVA, arXiv 2401.06104",
     .takes_budget = true,
     .observes_attention = true,
     .parameters = {},
     .validate = validate_tova,
     .make = make_tova},
    {.kind = PolicyKind::kKeyDiff,
     .name = "keydiff",
     .summary = "per layer and KV head the entries with keys least like the mean key, and the newest",
     .source = "KeyDiff, arXiv 2504.15364",
     .takes_budget = true,
     .observes_attention = false,
     .parameters = kKeyParameters,
     .validate = validate_keydiff,
     .make = make_keydiff},
    {.kind = PolicyKind::kRandom,
     .name = "random",
     .summary = "per layer and KV head entries drawn at random, beside the first and the newest: a baseline",
     .source = "",
     .takes_budget = true,
     .observes_attention = false,
     .parameters = kRandomParameters,
     .validate = validate_random,
     .make = make_random},
    {.kind = PolicyKind::kAdaSnapKv,
     .name = "ada_snapkv",
     .summary = "as snapkv, with a layer's entries shared among its KV heads by their scores",
     .source = "Ada-KV, arXiv 2407.11550",
     .takes_budget = true,
     .observes_attention = true,
     .parameters = kAdaSnapKvParameters,
     .validate = validate_ada_snapkv,
     .make = make_ada_snapkv},
    {.kind = PolicyKind::kAdaPyramidKv,
     .name = "ada_pyramidkv",
     .summary = "as pyramidkv, with a layer's entries shared among its KV heads by their scores",
     .source = "Ada-KV, arXiv 2407.11550",
     .takes_budget = true,
     .observes_attention = true,
     .parameters = kAdaPyramidKvParameters,
     .validate = validate_ada_pyramidkv,
     .make = make_ada_pyramidkv},
    {.kind = PolicyKind::kFunnel,
     .name = "funnel",
     .summary =
         "per layer and KV head the entries that queries from the whole prompt would attend to behind it and that "
         "weigh much in the layer's output; budgets of heads from a table of the model, or from all scores",
     .source = "",
     .takes_budget = true,
     .observes_attention = true,
     .parameters = kFunnelParameters,
     .defaults = {.window_tokens = 32},
     .kv_dtype = KvDtype::kK8V4,
     .validate = validate_funnel,
     .make = make_funnel},
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

std::string policy_names() {
  return absl::StrJoin(kTable, ", ",
                       [](std::string* out, const PolicyRow& row) { out->append(row.name.data(), row.name.size()); });
}

absl::StatusOr<std::unique_ptr<CachePolicy>> make_policy(const PolicySpec& spec) {
  const PolicyRow& row = policy_row(spec.kind);
  PKV_RETURN_IF_ERROR(row.validate(spec));
  return row.make(spec);
}

}  // namespace pkv
