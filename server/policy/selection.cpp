// Selection by count, on the backend, and by recall, on the host.
#include "server/policy/selection.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

#include "kernels/check.h"
#include "server/policy/recall_shortfall.h"

namespace pkv {
namespace {

constexpr float kAlways = std::numeric_limits<float>::infinity();

std::vector<int32_t> first_columns(int32_t count) {
  std::vector<int32_t> columns(static_cast<size_t>(count));
  std::iota(columns.begin(), columns.end(), 0);
  return columns;
}

// Row `head` of a scratch tensor, n columns.
std::vector<float> host_row(const SelectionInput& input, const Tensor& tensor, size_t head) {
  std::vector<float> row(static_cast<size_t>(input.tokens));
  input.backend.fetch(
      {row.data(), tensor.view().slice_rows(static_cast<int64_t>(head), 1).slice_cols(0, input.tokens)});
  return row;
}

// Columns before the window, which is kept without being ranked.
int32_t past_columns(const SelectionInput& input) { return std::max(0, input.tokens - input.plan.window_tokens); }

// Sinks and pins before everything else.
void raise_kept_spans(const SelectionInput& input) {
  for (const TokenSpan& span : input.plan.kept_spans) {
    const int32_t end = std::min(span.end, past_columns(input));
    if (span.begin >= end) continue;
    input.backend.fill(input.scratch.scores.view().slice_cols(span.begin, end - span.begin), kAlways);
  }
}

double recall_of(std::span<const float> mass, std::span<const int32_t> kept) {
  double total = 0, carried = 0;
  for (const float value : mass) total += value;
  for (const int32_t column : kept) carried += mass[static_cast<size_t>(column)];
  return carried / total;
}

}  // namespace

Selection keep_everything(int32_t tokens, size_t kv_heads, bool recall_known) {
  Selection selection{.kept = std::vector<std::vector<int32_t>>(kv_heads, first_columns(tokens))};
  if (recall_known) selection.recall.assign(kv_heads, 1.0);
  return selection;
}

Selection select_best(const SelectionInput& input) {
  raise_kept_spans(input);
  const int32_t past = past_columns(input), window = input.tokens - past;
  const std::span<const int32_t> budgets = input.budgets;
  for (size_t first = 0; first < budgets.size();) {  // neighbouring lanes with equal budgets go together
    size_t end = first + 1;
    while (end < budgets.size() && budgets[end] == budgets[first]) ++end;
    const int32_t ranked = budgets[first] - window;
    PKV_CHECK(ranked >= 0 && budgets[first] <= input.tokens, "a budget below the window or beyond the prompt");
    const auto row = static_cast<int64_t>(first), rows = static_cast<int64_t>(end - first);
    if (ranked > 0) {
      input.backend.select_top(input.scratch.scores.view().slice_rows(row, rows).slice_cols(0, past), ranked,
                               input.scratch.kept.view().slice_rows(row, rows));
    }
    first = end;
  }
  Selection selection;
  for (size_t head = 0; head < budgets.size(); ++head) {
    const int32_t ranked = budgets[head] - window;
    std::vector<int32_t> kept(static_cast<size_t>(budgets[head]));
    const TensorView row = input.scratch.kept.view().slice_rows(static_cast<int64_t>(head), 1);
    if (ranked > 0) input.backend.fetch({kept.data(), row.slice_cols(0, ranked)});
    std::iota(kept.begin() + ranked, kept.end(), past);
    if (input.recall_known) selection.recall.push_back(recall_of(host_row(input, input.scratch.mass, head), kept));
    selection.kept.push_back(std::move(kept));
  }
  return selection;
}

absl::StatusOr<Selection> select_by_recall(const SelectionInput& input) {
  raise_kept_spans(input);
  const double wanted = static_cast<double>(input.budget.min_recall_millionths) / static_cast<double>(kMillion);
  Selection selection;
  for (size_t head = 0; head < input.budgets.size(); ++head) {
    const std::vector<float> mass = host_row(input, input.scratch.mass, head);
    std::vector<float> scores = host_row(input, input.scratch.scores, head);
    std::fill(scores.begin() + past_columns(input), scores.end(), kAlways);
    std::vector<int32_t> order = first_columns(input.tokens);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
      return scores[static_cast<size_t>(a)] > scores[static_cast<size_t>(b)];
    });
    double total = 0, carried = 0;
    for (const int32_t column : order) total += mass[static_cast<size_t>(column)];
    const auto is_needed = [&](int32_t column) {
      return scores[static_cast<size_t>(column)] == kAlways || carried < wanted * total;
    };
    size_t count = 0;
    while (count < static_cast<size_t>(input.budgets[head]) && is_needed(order[count])) {
      carried += mass[static_cast<size_t>(order[count++])];
    }
    if (carried < wanted * total && !input.budget.allow_shortfall) {
      return recall_not_reached({.reached = carried / total, .layer = input.layer}, input.budget.min_recall_millionths);
    }
    order.resize(count);
    std::sort(order.begin(), order.end());
    selection.kept.push_back(std::move(order));
    selection.recall.push_back(carried / total);
  }
  return selection;
}

}  // namespace pkv
