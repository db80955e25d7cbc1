// How many entries each lane keeps, and then which.
#include "server/policy/selection.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "kernels/check.h"
#include "kernels/status_macros.h"
#include "server/policy/recall_shortfall.h"

namespace pkv {
namespace {

constexpr float kAlways = std::numeric_limits<float>::infinity();

// Entries that are kept without being ranked.
int32_t window_of(const SelectionInput& input) { return std::min(input.tokens, input.plan.window_tokens); }

TensorView columns_of(const SelectionInput& input, const Tensor& tensor) {
  return tensor.view().slice_cols(0, input.tokens);
}

int32_t largest_budget(const SelectionInput& input) {
  return *std::max_element(input.budgets.begin(), input.budgets.end());
}

// Sinks and pins before everything else.
void raise_kept_spans(const SelectionInput& input) {
  for (const TokenSpan& span : input.plan.kept_spans) {
    const int32_t end = std::min(span.end, input.tokens - window_of(input));
    if (span.begin >= end) continue;
    input.backend.fill(input.scratch.scores.view().slice_cols(span.begin, end - span.begin), kAlways);
  }
}

std::vector<int32_t> count_by_budget(const SelectionInput& input) {
  input.backend.upload(input.scratch.counts.view(), input.budgets.data());
  return {input.budgets.begin(), input.budgets.end()};
}

absl::StatusOr<std::vector<int32_t>> count_by_share(const SelectionInput& input) {
  const CachePlan& plan = input.plan;
  const auto layer = static_cast<size_t>(input.layer);
  const TensorView counts = input.scratch.counts.view();
  input.backend.share_layer(columns_of(input, input.scratch.scores),
                            {.window = window_of(input),
                             .smallest_lane = std::min(plan.smallest_lanes[layer], input.tokens),
                             .largest_lane = largest_budget(input),
                             .total = plan.shared_budgets[layer]},
                            counts);
  std::vector<int32_t> kept(input.budgets.size());
  input.backend.fetch({kept.data(), counts});
  PKV_RETURN_IF_ERROR(input.backend.status());
  return kept;
}

absl::StatusOr<std::vector<int32_t>> count_by_recall(const SelectionInput& input) {
  const double wanted = static_cast<double>(input.budget.min_recall_millionths) / static_cast<double>(kMillion);
  const int32_t most = largest_budget(input);
  const TensorView counts = input.scratch.counts.view();
  input.backend.count_for_recall(columns_of(input, input.scratch.scores), columns_of(input, input.scratch.mass),
                                 {.window = window_of(input), .largest_lane = most, .recall = wanted}, counts,
                                 input.recalls);
  std::vector<int32_t> kept(input.budgets.size());
  std::vector<double> recalls(input.budgets.size());
  const Fetch reads[] = {{kept.data(), counts}, {recalls.data(), input.recalls}};
  input.backend.fetch(reads);
  PKV_RETURN_IF_ERROR(input.backend.status());
  for (size_t head = 0; head < kept.size() && !input.budget.allow_shortfall; ++head) {
    if (kept[head] < most || recalls[head] >= wanted) continue;
    return recall_not_reached({.reached = recalls[head], .layer = input.layer}, input.budget.min_recall_millionths);
  }
  return kept;
}

absl::StatusOr<std::vector<int32_t>> count_entries(const SelectionInput& input) {
  if (input.budget.kind == BudgetKind::kMinRecall) return count_by_recall(input);
  if (input.plan.shares(input.layer)) return count_by_share(input);
  return count_by_budget(input);
}

void select_counted(const SelectionInput& input, int32_t window) {
  input.backend.select_top(columns_of(input, input.scratch.scores), window, input.scratch.counts.view(),
                           input.scratch.kept.view());
}

}  // namespace

absl::StatusOr<std::vector<int32_t>> select_entries(const SelectionInput& input) {
  raise_kept_spans(input);
  PKV_ASSIGN_OR_RETURN(std::vector<int32_t> kept, count_entries(input));
  select_counted(input, window_of(input));
  if (input.recalls.data != nullptr && input.budget.kind != BudgetKind::kMinRecall) {
    input.backend.recall(columns_of(input, input.scratch.mass), input.scratch.kept.view(), input.scratch.counts.view(),
                         input.recalls);
  }
  return kept;
}

absl::StatusOr<LayerScores> read_scores(const SelectionInput& input) {
  raise_kept_spans(input);
  const size_t numbers = input.budgets.size() * static_cast<size_t>(input.tokens);
  LayerScores read{std::vector<float>(numbers), std::vector<float>(numbers)};
  const Fetch reads[] = {{read.scores.data(), columns_of(input, input.scratch.scores)},
                         {read.mass.data(), columns_of(input, input.scratch.mass)}};
  input.backend.fetch(reads);
  PKV_RETURN_IF_ERROR(input.backend.status());
  return read;
}

void select_everything(const SelectionInput& input) {
  const std::vector<int32_t> all(input.budgets.size(), input.tokens);
  input.backend.upload(input.scratch.counts.view(), all.data());
  select_counted(input, input.tokens);
}

}  // namespace pkv
