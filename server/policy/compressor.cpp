// Observation and the cut of one layer: score, select, gather, shrink.
#include "server/policy/compressor.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "kernels/check.h"
#include "kernels/status_macros.h"
#include "server/cache/layer_lanes.h"
#include "server/policy/observed_attention.h"

namespace pkv {
namespace {

// Rows whose attention is added up at once where every row is observed.
constexpr int32_t kRowsAtOnce = 64;

// Shapes of what a compressor allocates, in the order of its members.
struct Workspace {
  int64_t query_rows = 0, lse_rows = 0, sum_cols = 0;
  uint64_t bytes(const CompressorOptions& options) const {
    const auto heads = static_cast<uint64_t>(options.q_heads);
    const auto width = heads * static_cast<uint64_t>(options.geometry.head_dim);
    return sizeof(float) * (static_cast<uint64_t>(query_rows) * width +
                            (static_cast<uint64_t>(lse_rows) + static_cast<uint64_t>(sum_cols)) * heads);
  }
};

Workspace workspace_of(const CachePolicy& policy, const CachePlan& plan, int32_t prompt_tokens) {
  if (!plan.drops_entries()) return {};
  switch (policy.observation()) {
    case Observation::kRows: {
      const auto rows = static_cast<int64_t>(policy.observe(prompt_tokens).size());
      return {.query_rows = rows, .lse_rows = rows};
    }
    case Observation::kEveryRow:
      return {.lse_rows = kRowsAtOnce, .sum_cols = prompt_tokens};
    case Observation::kNothing:
    case Observation::kKeys:
      break;
  }
  return {};
}

}  // namespace

Compressor::Compressor(Backend& backend, const CachePolicy& policy, const CachePlan& plan,
                       const CompressorOptions& options)
    : backend_(backend), policy_(policy), plan_(plan), options_(options) {
  if (!plan.drops_entries() || policy.observation() != Observation::kRows) return;
  rows_ = policy.observe(options.prompt_tokens);
  for (const ObservationRow& row : rows_) {
    PKV_CHECK(row.position == row.prompt_row, "queries are observed at their own positions only");
    PKV_CHECK(row.prompt_row == rows_.front().prompt_row + (&row - rows_.data()), "rows are observed in one run");
  }
}

uint64_t Compressor::workspace_bytes(const CachePolicy& policy, const CachePlan& plan,
                                     const CompressorOptions& options) {
  return workspace_of(policy, plan, options.prompt_tokens).bytes(options);
}

size_t Compressor::workspace_bytes() const { return observed_q_.bytes() + lse_.bytes() + sums_.bytes(); }

absl::StatusOr<std::unique_ptr<Compressor>> Compressor::create(Backend& backend, const CachePolicy& policy,
                                                               const CachePlan& plan,
                                                               const CompressorOptions& options) {
  std::unique_ptr<Compressor> compressor(new Compressor(backend, policy, plan, options));
  const Workspace workspace = workspace_of(policy, plan, options.prompt_tokens);
  const struct {
    Tensor& tensor;
    int64_t rows, cols;
  } wanted[] = {{compressor->observed_q_, workspace.query_rows, int64_t{options.q_heads} * options.geometry.head_dim},
                {compressor->lse_, workspace.lse_rows, options.q_heads},
                {compressor->sums_, options.q_heads, workspace.sum_cols}};
  for (const auto& [tensor, rows, cols] : wanted) {
    if (rows == 0 || cols == 0) continue;
    PKV_ASSIGN_OR_RETURN(tensor, backend.allocate(rows, cols, DType::kF32));
  }
  return compressor;
}

void Compressor::observe(const TensorView& q, const KvView& kv, int32_t first_row) {
  if (!plan_.drops_entries()) return;
  if (policy_.observation() == Observation::kEveryRow) {
    add_attention(q, kv, first_row);
    return;
  }
  for (size_t i = 0; i < rows_.size(); ++i) {
    const int64_t row = rows_[i].prompt_row - first_row;
    if (row < 0 || row >= q.rows) continue;
    backend_.copy(observed_q_.view().slice_rows(static_cast<int64_t>(i), 1), q.slice_rows(row, 1));
    ++rows_seen_;
  }
}

LayerView Compressor::layer_view(const KvView& kv, const TensorView& q, int32_t unseen) const {
  return {.backend = &backend_,
          .kv = kv,
          .tokens = options_.prompt_tokens,
          .observed_q = q,
          .unseen = unseen,
          .q_heads = options_.q_heads,
          .kv_heads = options_.geometry.kv_heads,
          .scale = attention_scale(options_.geometry.head_dim)};
}

// H2O (arXiv 2306.14048, section 4): what every query so far has given to each key.
void Compressor::add_attention(const TensorView& q, const KvView& kv, int32_t first_row) {
  if (first_row == 0) backend_.fill(sums_.view(), 0);
  for (int32_t row = 0; row < q.rows; row += kRowsAtOnce) {
    const auto rows = static_cast<int32_t>(std::min<int64_t>(kRowsAtOnce, q.rows - row));
    const auto unseen = static_cast<int32_t>(q.rows) - 1 - row;  // the chunk's own slots are the lanes' newest
    add_observed_attention(layer_view(kv, q.slice_rows(row, rows), unseen), lse_.view().slice_rows(0, rows),
                           sums_.view());
  }
  rows_seen_ += static_cast<int32_t>(q.rows);
}

absl::StatusOr<LayerOutcome> Compressor::finish_layer(const Cut& cut, int32_t layer) {
  const bool every_row = plan_.drops_entries() && policy_.observation() == Observation::kEveryRow;
  const int32_t expected = every_row ? options_.prompt_tokens : static_cast<int32_t>(rows_.size());
  PKV_CHECK(rows_seen_ == expected, "a layer ends before every row was observed");
  rows_seen_ = 0;
  const int32_t heads = options_.geometry.kv_heads, tokens = options_.prompt_tokens;
  for (int32_t head = 0; head < heads; ++head) {
    PKV_CHECK(cut.cache.length(cut.from, layer, head) == tokens, "a lane that does not hold the whole prompt");
  }
  PKV_CHECK(cut.scratch.max_tokens >= tokens, "scratch for shorter prompts");

  if (scores_layer(layer)) {
    const LayerLanes lanes(cut.cache, {cut.from}, layer);
    score_layer(lanes.kv(), layer, cut.scratch);
  }
  PKV_ASSIGN_OR_RETURN(Selection selection, select(layer, cut.scratch));
  for (const Target& target : cut.targets) {
    if (target.evictor != nullptr) tell_evictor(layer, cut.scratch, selection, *target.evictor);
    PKV_RETURN_IF_ERROR(move_entries(cut, target, layer, selection));
  }
  return outcome_of(layer, std::move(selection));
}

absl::Status Compressor::move_entries(const Cut& cut, const Target& target, int32_t layer, const Selection& selection) {
  const int32_t heads = options_.geometry.kv_heads;
  const bool in_place = target.sequence == cut.from;
  for (int32_t head = 0; head < heads && !in_place; ++head) {
    const auto count = static_cast<int32_t>(selection.kept[static_cast<size_t>(head)].size());
    absl::Status status = cut.cache.append_slots(target.sequence, layer, head, count);
    if (!status.ok()) return status;
  }
  const LayerLanes lanes(cut.cache, {cut.from, target.sequence}, layer);
  for (int32_t head = 0; head < heads; ++head) {
    const std::vector<int32_t>& kept = selection.kept[static_cast<size_t>(head)];
    const auto count = static_cast<int32_t>(kept.size());
    if (in_place && count == options_.prompt_tokens) continue;
    const TensorView columns = cut.scratch.kept.view().slice_rows(head, 1).slice_cols(0, count);
    backend_.upload(columns, kept.data());
    backend_.gather(lanes.kv(), head, columns, count, in_place ? head : heads + head);
    if (in_place) cut.cache.shrink(cut.from, layer, head, count);
  }
  return absl::OkStatus();
}

LayerOutcome Compressor::outcome_of(int32_t layer, Selection selection) const {
  const std::span<const int32_t> budgets = layer_budgets(layer);
  LayerOutcome outcome{.budget_tokens = *std::max_element(budgets.begin(), budgets.end())};
  for (const std::vector<int32_t>& kept : selection.kept) outcome.kept.push_back(static_cast<int32_t>(kept.size()));
  outcome.recall = std::move(selection.recall);
  if (options_.record_positions) outcome.kept_positions = std::move(selection.kept);
  return outcome;
}

std::span<const int32_t> Compressor::layer_budgets(int32_t layer) const {
  const auto heads = static_cast<size_t>(options_.geometry.kv_heads);
  return std::span(plan_.lane_budgets).subspan(static_cast<size_t>(layer) * heads, heads);
}

bool Compressor::cuts_layer(int32_t layer) const {
  if (!plan_.compresses) return false;
  if (options_.budget.kind == BudgetKind::kMinRecall) return true;
  const std::span<const int32_t> budgets = layer_budgets(layer);
  return std::any_of(budgets.begin(), budgets.end(), [&](int32_t kept) { return kept < options_.prompt_tokens; });
}

// A layer that keeps everything is scored only for evictions later on that start from the prompt's scores.
bool Compressor::scores_layer(int32_t layer) const {
  return cuts_layer(layer) ||
         (plan_.evicts_while_generating && policy_.decode_scoring() != DecodeScoring::kAtIntervals);
}

void Compressor::score_layer(const KvView& kv, int32_t layer, const CompressorScratch& scratch) {
  const int64_t tokens = options_.prompt_tokens;
  const bool every_row = policy_.observation() == Observation::kEveryRow;
  const int32_t unseen = rows_.empty() ? 0 : options_.prompt_tokens - 1 - rows_.front().position;
  LayerView view = layer_view(kv, observed_q_.view(), unseen);
  view.layer = layer;
  const int32_t state = policy_.lane_state_floats(options_.geometry.head_dim);
  policy_.score(view, {.lse = lse_.view(),
                       .sums = every_row ? sums_.view() : scratch.sums.view().slice_cols(0, tokens),
                       .mass = scratch.mass.view().slice_cols(0, tokens),
                       .scores = scratch.scores.view().slice_cols(0, tokens),
                       .lane_state = scratch.state.view().slice_cols(0, state)});
}

absl::StatusOr<Selection> Compressor::select(int32_t layer, const CompressorScratch& scratch) const {
  const std::span<const int32_t> budgets = layer_budgets(layer);
  if (!cuts_layer(layer)) {
    const bool recall_known = !plan_.drops_entries() || observes_attention(policy_);
    return keep_everything(options_.prompt_tokens, budgets.size(), recall_known);
  }
  const SelectionInput input{.backend = backend_,
                             .plan = plan_,
                             .budget = options_.budget,
                             .budgets = budgets,
                             .layer = layer,
                             .tokens = options_.prompt_tokens,
                             .recall_known = observes_attention(policy_),
                             .scratch = scratch};
  return options_.budget.kind == BudgetKind::kMinRecall ? select_by_recall(input) : select_best(input);
}

void Compressor::tell_evictor(int32_t layer, const CompressorScratch& scratch, const Selection& selection,
                              Evictor& evictor) {
  const DecodeScoring scoring = policy_.decode_scoring();
  const int32_t tokens = options_.prompt_tokens;
  const bool scored = scores_layer(layer);
  // What goes on being added up are the sums, not what was ranked; and a window that was not ranked has no scores.
  const TensorView& scores = scoring == DecodeScoring::kEveryStep ? scratch.mass.view() : scratch.scores.view();
  const int32_t known = !scored                                  ? 0
                        : scoring == DecodeScoring::kAtIntervals ? std::max(0, tokens - plan_.window_tokens)
                                                                 : tokens;
  std::vector<float> columns(static_cast<size_t>(tokens), std::numeric_limits<float>::quiet_NaN());
  std::vector<float> state(static_cast<size_t>(policy_.lane_state_floats(options_.geometry.head_dim)));
  std::vector<float> kept_scores;
  for (int32_t head = 0; head < options_.geometry.kv_heads; ++head) {
    if (known > 0) backend_.fetch({columns.data(), scores.slice_rows(head, 1).slice_cols(0, known)});
    if (!state.empty()) {
      backend_.fetch(
          {state.data(), scratch.state.view().slice_rows(head, 1).slice_cols(0, static_cast<int64_t>(state.size()))});
    }
    const std::vector<int32_t>& kept = selection.kept[static_cast<size_t>(head)];
    kept_scores.clear();
    for (const int32_t column : kept) kept_scores.push_back(columns[static_cast<size_t>(column)]);
    evictor.set_lane(layer, head, kept, kept_scores, state);
  }
  if (scoring != DecodeScoring::kAtIntervals) return;
  const TensorView ring = evictor.ring(layer);
  for (size_t i = 0; i < rows_.size(); ++i) {
    backend_.copy(ring.slice_rows(rows_[i].position % ring.rows, 1),
                  observed_q_.view().slice_rows(static_cast<int64_t>(i), 1));
  }
}

}  // namespace pkv
