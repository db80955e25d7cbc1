// The arithmetic and the words of a cache report.
#include "server/engine/cache_report.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/policy/registry.h"

namespace pkv {
namespace {

// The mean over all lanes, rounded up: what a recall came to in entries.
int32_t mean_kept(const std::vector<LayerOutcome>& layers) {
  int64_t entries = 0, lanes = 0;
  for (const LayerOutcome& layer : layers) {
    for (const int32_t kept : layer.kept) entries += kept;
    lanes += static_cast<int64_t>(layer.kept.size());
  }
  return lanes == 0 ? 0 : static_cast<int32_t>((entries + lanes - 1) / lanes);
}

std::string why_not_compressed(const PolicySpec& spec, const CachePlan& plan, int32_t prompt_tokens) {
  const PolicyRow& policy = policy_row(spec.kind);
  if (!policy.takes_budget) return absl::StrCat("policy ", std::string(policy.name), " keeps everything");
  if (plan.evicts_while_generating) return "the answer ended before anything had to go";
  if (plan.compresses) return "every entry is needed for the recall asked for";
  const bool total = spec.budget.scope == BudgetScope::kTotal;
  return absl::StrCat("prompt of ", prompt_tokens, total ? " tokens and its answer are" : " tokens is",
                      " within the budget of ", plan.budget_tokens);
}

}  // namespace

void sort_positions(RequestResult& result) {
  const auto sort = [](std::vector<LayerOutcome>& layers) {
    for (LayerOutcome& layer : layers) {
      for (std::vector<int32_t>& lane : layer.kept_positions) std::ranges::sort(lane);
      for (std::vector<int32_t>& lane : layer.final_positions) std::ranges::sort(lane);
    }
  };
  sort(result.cache.layers);
  for (PolicyComparison& comparison : result.comparisons) sort(comparison.cache.layers);
}

size_t listed_numbers(const RequestResult& result) {
  const auto positions = [](const std::vector<LayerOutcome>& layers) {
    size_t numbers = 0;
    for (const LayerOutcome& layer : layers) {
      for (const std::vector<int32_t>& lane : layer.kept_positions) numbers += lane.size();
      for (const std::vector<int32_t>& lane : layer.final_positions) numbers += lane.size();
    }
    return numbers;
  };
  size_t numbers = positions(result.cache.layers);
  for (const PolicyComparison& comparison : result.comparisons) {
    numbers += positions(comparison.cache.layers) + comparison.kl.size() + comparison.tokens.size();
  }
  return numbers;
}

uint64_t evicted_from_prompt(const std::vector<LayerOutcome>& layers, int32_t prompt_tokens) {
  uint64_t evicted = 0;
  for (const LayerOutcome& layer : layers) {
    for (const int32_t kept : layer.kept) evicted += static_cast<uint64_t>(prompt_tokens - kept);
  }
  return evicted;
}

std::vector<double> lane_recall(const LayerOutcome& layer, bool compressed) {
  if (!layer.recall.empty()) return layer.recall;
  return compressed ? std::vector<double>() : std::vector<double>(std::max<size_t>(layer.kept.size(), 1), 1.0);
}

std::vector<double> lane_recall(const CacheReport& report) {
  std::vector<double> recall;
  for (const LayerOutcome& layer : report.layers) {
    const std::vector<double> lanes = lane_recall(layer, report.compressed);
    recall.insert(recall.end(), lanes.begin(), lanes.end());
  }
  if (recall.empty() && !report.compressed) recall.push_back(1.0);
  return recall;
}

std::optional<double> mean_recall(const CacheReport& report) {
  const std::vector<double> recall = lane_recall(report);
  if (recall.empty()) return std::nullopt;
  return std::accumulate(recall.begin(), recall.end(), 0.0) / static_cast<double>(recall.size());
}

double kept_share(const CacheReport& report) {
  return static_cast<double>(report.bytes.held) / static_cast<double>(report.full_bytes);
}

CacheReport make_report(const PolicySpec& spec, const CachePlan& plan, int32_t prompt_tokens, CacheReport measured) {
  CacheReport report = std::move(measured);
  report.budget_tokens = spec.budget.kind == BudgetKind::kMinRecall ? mean_kept(report.layers) : plan.budget_tokens;
  report.saved_bytes =
      static_cast<int64_t>(report.full_bytes) - static_cast<int64_t>(report.bytes.allocated + report.bytes.auxiliary);
  report.evicted_entries += evicted_from_prompt(report.layers, prompt_tokens);
  report.compressions =
      static_cast<uint32_t>(std::count_if(report.layers.begin(), report.layers.end(), [&](const LayerOutcome& layer) {
        return std::any_of(layer.kept.begin(), layer.kept.end(), [&](int32_t kept) { return kept < prompt_tokens; });
      }));
  report.compressed = report.evicted_entries > 0;
  if (!report.compressed) report.not_compressed_reason = why_not_compressed(spec, plan, prompt_tokens);
  return report;
}

}  // namespace pkv
