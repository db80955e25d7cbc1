// Observation and the cut of one layer: score, select, gather, shrink.
#include "server/policy/compressor.h"

#include <algorithm>
#include <utility>

#include "kernels/check.h"
#include "kernels/status_macros.h"
#include "server/cache/layer_lanes.h"
#include "server/policy/observed_attention.h"

namespace pkv {
namespace {

// Rows whose attention is added up at once where every row is observed and attention gave no log-sum-exps.
constexpr int32_t kRowsAtOnce = 64;

// By how many positions a row's query is turned.
int32_t turn_of(const ObservationRow& row) { return row.position - row.prompt_row; }

// Of one observed row and one entry in all query heads: two passes.
int64_t pair_work(const Compressor::Options& options) {
  return int64_t{2} * options.q_heads * options.geometry.head_dim;
}

// Selecting and moving a layer's entries, each of whose numbers is touched a few times.
int64_t kept_work(const Compressor::Options& options) {
  return int64_t{8} * options.prompt_tokens * options.geometry.kv_heads * options.geometry.head_dim;
}

Cascade::Shape cascade_shape(const Compressor::Options& options) {
  return {.kv_heads = options.geometry.kv_heads, .tokens = options.prompt_tokens};
}

}  // namespace

Compressor::Compressor(Backend& backend, const CachePolicy& policy, const CachePlan& plan, const Options& options)
    : backend_(backend), policy_(policy), plan_(plan), options_(options) {
  if (plan.drops_entries() && policy.observation() == Observation::kRows) rows_ = policy.observe(options.prompt_tokens);
  if (plan.shares_model()) cascade_.emplace(plan, cascade_shape(options));
}

TensorSet<Compressor> Compressor::tensors(const CachePolicy& policy, const CachePlan& plan, const Options& options) {
  if (!plan.drops_entries()) return {};
  int64_t query_rows = 0, lse_rows = 0, sum_cols = 0;
  switch (policy.observation()) {
    case Observation::kRows:
      query_rows = lse_rows = static_cast<int64_t>(policy.observe(options.prompt_tokens).size());
      break;
    case Observation::kEveryRow:
      lse_rows = kRowsAtOnce;
      sum_cols = options.prompt_tokens;
      break;
    case Observation::kNothing:
    case Observation::kKeys:
      break;
  }
  const int32_t recalled_layers = plan.compresses && observes_attention(policy) ? options.geometry.layers : 0;
  return {{&Compressor::observed_q_, query_rows, int64_t{options.q_heads} * options.geometry.head_dim},
          {&Compressor::lse_, lse_rows, options.q_heads},
          {&Compressor::sums_, options.q_heads, sum_cols},
          {&Compressor::recalls_, recalled_layers, options.geometry.kv_heads, DType::kF64}};
}

uint64_t Compressor::workspace_bytes(const CachePolicy& policy, const CachePlan& plan, const Options& options) {
  const uint64_t sharing = plan.shares_model() ? Cascade::bytes(plan, cascade_shape(options)) : 0;
  const std::optional<ValueRefit::Shape> refit = refit_shape(policy, plan, options);
  const uint64_t refitting = refit ? ValueRefit::bytes(*refit, policy.observe(options.prompt_tokens)) : 0;
  return tensors(policy, plan, options).bytes() + sharing + refitting;
}

absl::StatusOr<std::unique_ptr<Compressor>> Compressor::create(Backend& backend, const CachePolicy& policy,
                                                               const CachePlan& plan, const Options& options) {
  std::unique_ptr<Compressor> compressor(new Compressor(backend, policy, plan, options));
  PKV_RETURN_IF_ERROR(tensors(policy, plan, options).allocate(backend, *compressor));
  compressor->list_observed_rows();
  if (const std::optional<ValueRefit::Shape> shape = refit_shape(policy, plan, options)) {
    PKV_ASSIGN_OR_RETURN(compressor->refit_, ValueRefit::create(backend, *shape, compressor->rows_));
  }
  return compressor;
}

// Rows that follow each other, all turned or none, as long as each sees one entry more than the one before, or all of
// them.
void Compressor::list_observed_rows() {
  const auto unseen_by = [&](size_t row) { return std::max(0, options_.prompt_tokens - 1 - rows_[row].position); };
  for (size_t first = 0; first < rows_.size();) {
    size_t end = first + 1;
    const bool turned = turn_of(rows_[first]) != 0;
    while (end < rows_.size() && unseen_by(end) == std::max(0, unseen_by(end - 1) - 1) &&
           (turn_of(rows_[end]) != 0) == turned) {
      ++end;
    }
    observed_.push_back(
        {.q = observed_q_.view().slice_rows(static_cast<int64_t>(first), static_cast<int64_t>(end - first)),
         .unseen = unseen_by(first),
         .turned = turned});
    first = end;
  }
}

void Compressor::observe(const TensorView& q, const KvView& kv, int32_t first_row, const TensorView& lse) {
  if (!plan_.drops_entries()) return;
  policy_.observation() == Observation::kEveryRow ? add_attention(q, kv, first_row, lse) : keep_rows(q, first_row);
}

// Copies runs of the chunk's rows that are turned alike.
void Compressor::keep_rows(const TensorView& q, int32_t first_row) {
  const auto last_row = static_cast<int32_t>(first_row + q.rows) - 1;
  for (size_t first = 0; first < rows_.size();) {
    size_t end = first + 1;
    if (rows_[first].prompt_row < first_row || rows_[first].prompt_row > last_row) {
      first = end;
      continue;
    }
    while (end < rows_.size() && rows_[end].prompt_row == rows_[end - 1].prompt_row + 1 &&
           rows_[end].prompt_row <= last_row && turn_of(rows_[end]) == turn_of(rows_[first])) {
      ++end;
    }
    const auto count = static_cast<int64_t>(end - first);
    const TensorView kept = observed_q_.view().slice_rows(static_cast<int64_t>(first), count);
    backend_.copy(kept, q.slice_rows(rows_[first].prompt_row - first_row, count));
    if (const int32_t turn = turn_of(rows_[first]); turn != 0) backend_.turn_rows(kept, turn, options_.rope);
    rows_seen_ += static_cast<int32_t>(count);
    first = end;
  }
}

LayerView Compressor::layer_view(const KvView& kv, std::span<const ObservedRows> observed) const {
  return {.backend = &backend_,
          .kv = kv,
          .tokens = options_.prompt_tokens,
          .observed = observed,
          .q_heads = options_.q_heads,
          .kv_heads = options_.geometry.kv_heads,
          .scale = attention_scale(options_.geometry.head_dim)};
}

// H2O (arXiv 2306.14048, section 4): what every query so far has given to each key.
void Compressor::add_attention(const TensorView& q, const KvView& kv, int32_t first_row, const TensorView& lse) {
  if (first_row == 0) backend_.fill(sums_.view(), 0);
  // The chunk's own slots are the lanes' newest.
  const auto newest = static_cast<int32_t>(q.rows) - 1;
  if (lse.data != nullptr) add_known_attention(layer_view(kv, {}), {.q = q, .unseen = newest}, lse, sums_.view());
  for (int32_t row = 0; row < q.rows && lse.data == nullptr; row += kRowsAtOnce) {
    const auto rows = static_cast<int32_t>(std::min<int64_t>(kRowsAtOnce, q.rows - row));
    const ObservedRows observed{.q = q.slice_rows(row, rows), .unseen = newest - row};
    pkv::add_attention(layer_view(kv, {}), observed, lse_.view(), sums_.view());
  }
  rows_seen_ += static_cast<int32_t>(q.rows);
}

int64_t Compressor::observed_pair_work(const CachePolicy& policy, const CachePlan& plan, const Options& options) {
  const bool observed = plan.drops_entries() && policy.observation() == Observation::kEveryRow;
  return observed ? pair_work(options) / 2 : 0;  // one pass: attention gives the log-sum-exps
}

int64_t Compressor::cut_work(const CachePolicy& policy, const CachePlan& plan, const Options& options) {
  if (!plan.drops_entries() || policy.observation() != Observation::kRows) return kept_work(options);
  const auto rows = static_cast<int64_t>(policy.observe(options.prompt_tokens).size());
  const std::optional<ValueRefit::Shape> refit = refit_shape(policy, plan, options);
  const int64_t refitting = refit ? ValueRefit::work(*refit, policy.observe(options.prompt_tokens)) : 0;
  return rows * options.prompt_tokens * pair_work(options) + kept_work(options) + refitting;
}

void Compressor::begin_cut(const Cut& cut, int32_t layer) {
  const bool every_row = plan_.drops_entries() && policy_.observation() == Observation::kEveryRow;
  const int32_t expected = every_row ? options_.prompt_tokens : static_cast<int32_t>(rows_.size());
  PKV_CHECK(rows_seen_ == expected, "a layer ends before every row was observed");
  rows_seen_ = 0;
  const int32_t tokens = options_.prompt_tokens;
  for (int32_t head = 0; head < options_.geometry.kv_heads; ++head) {
    PKV_CHECK(cut.cache.length(cut.from, layer, head) == tokens, "a lane that does not hold the whole prompt");
  }
  PKV_CHECK(cut.scratch.max_tokens >= tokens, "scratch for shorter prompts");
  steps_.emplace(options_.most_step_work);
  if (scores_layer(layer)) list_score_steps(cut, layer);
}

int64_t Compressor::next_step_work() const {
  if (!steps_->done()) return steps_->next_work();
  return refit_ && !refit_counts_.empty() ? refit_->step_work() : kept_work(options_);
}

absl::StatusOr<std::optional<LayerOutcome>> Compressor::cut_step(const Cut& cut, int32_t layer) {
  if (steps_->done()) {
    if (cascade_) return share_step(cut, layer);
    if (refit_ && cuts_layer(layer)) return refit_step(cut, layer);
    PKV_ASSIGN_OR_RETURN(std::vector<int32_t> counts, select(cut, layer));
    return finish_cut(cut, layer, std::move(counts));
  }
  const LayerLanes lanes(cut.cache, {cut.from}, layer);
  steps_->run_next(scored_view(lanes.kv(), layer));
  return std::nullopt;
}

absl::StatusOr<LayerOutcome> Compressor::finish_cut(const Cut& cut, int32_t layer, std::vector<int32_t> counts) {
  const int32_t heads = options_.geometry.kv_heads;
  for (const Target& target : cut.targets) {
    if (target.evictor != nullptr) tell_evictor(layer, cut.scratch, counts, *target.evictor);
    PKV_RETURN_IF_ERROR(move_entries(cut, target, layer, counts));
    // What a lane got of what it shares is all that it may have.
    for (int32_t head = 0; head < heads && plan_.shares(layer) && plan_.evicts_while_generating; ++head) {
      cut.cache.set_limit(target.sequence, layer, head, counts[static_cast<size_t>(head)]);
    }
  }
  // A lane's budget is what it got, where lanes share.
  const std::span<const int32_t> budgets = plan_.shares(layer) ? counts : layer_budgets(layer);
  const int32_t largest = *std::max_element(budgets.begin(), budgets.end());
  return LayerOutcome{.budget_tokens = largest, .kept = std::move(counts)};
}

absl::Status Compressor::move_entries(const Cut& cut, const Target& target, int32_t layer,
                                      std::span<const int32_t> counts) {
  const int32_t heads = options_.geometry.kv_heads;
  const TensorView kept = cut.scratch.kept.view(), kept_counts = cut.scratch.counts.view();
  if (target.sequence == cut.from) {
    if (cut.cache.converts(cut.from)) {
      backend_.gather(LayerLanes::before_and_after_cut(cut.cache, cut.from, layer).kv(), 0, kept, kept_counts, heads);
    } else if (cuts_layer(layer)) {
      backend_.gather(LayerLanes(cut.cache, {cut.from}, layer).kv(), 0, kept, kept_counts, 0);
    }
    cut.cache.cut(cut.from, layer, counts);
    return absl::OkStatus();
  }
  for (int32_t head = 0; head < heads; ++head) {
    PKV_RETURN_IF_ERROR(cut.cache.append_slots(target.sequence, layer, head, counts[static_cast<size_t>(head)]));
  }
  backend_.gather(LayerLanes(cut.cache, {cut.from, target.sequence}, layer).kv(), 0, kept, kept_counts, heads);
  return absl::OkStatus();
}

void Compressor::read_recalls(std::span<LayerOutcome> outcomes, std::vector<Fetch>& reads) const {
  if (plan_.drops_entries() && !observes_attention(policy_)) return;
  for (size_t i = 0; i < outcomes.size(); ++i) {
    const auto layer = static_cast<int32_t>(i);
    if (cascade_) {
      outcomes[i] = shared_outcome(layer);
      continue;
    }
    outcomes[i].recall.assign(static_cast<size_t>(options_.geometry.kv_heads), 1.0);  // where everything is kept
    if (cuts_layer(layer)) reads.push_back({outcomes[i].recall.data(), recalls_.view().slice_rows(layer, 1)});
  }
}

std::span<const int32_t> Compressor::layer_budgets(int32_t layer) const {
  const auto heads = static_cast<size_t>(options_.geometry.kv_heads);
  return std::span(plan_.lane_budgets).subspan(static_cast<size_t>(layer) * heads, heads);
}

bool Compressor::cuts_layer(int32_t layer) const {
  if (!plan_.compresses) return false;
  if (plan_.shares(layer) || plan_.shares_model()) return true;
  if (options_.budget.kind == BudgetKind::kMinRecall) return true;
  const std::span<const int32_t> budgets = layer_budgets(layer);
  return std::any_of(budgets.begin(), budgets.end(), [&](int32_t kept) { return kept < options_.prompt_tokens; });
}

// A layer that keeps everything is scored only for evictions later on that start from the prompt's scores.
bool Compressor::scores_layer(int32_t layer) const {
  return cuts_layer(layer) ||
         (plan_.evicts_while_generating && policy_.decode_rule().scoring() != DecodeRule::Scoring::kAtIntervals);
}

LayerView Compressor::scored_view(const KvView& kv, int32_t layer) const {
  LayerView view = layer_view(kv, observed_);
  view.layer = layer;
  if (policy_.weighs_values()) {
    const int64_t rows = int64_t{options_.q_heads} * options_.geometry.head_dim;
    view.value_factors = options_.value_factors.slice_rows(layer * rows, rows);
  }
  return view;
}

void Compressor::list_score_steps(const Cut& cut, int32_t layer) {
  const int64_t tokens = options_.prompt_tokens;
  const bool every_row = policy_.observation() == Observation::kEveryRow;
  const CompressorScratch& scratch = cut.scratch;
  const LayerLanes lanes(cut.cache, {cut.from}, layer);
  const int32_t state = policy_.lane_state_floats(options_.geometry.head_dim);
  policy_.score(scored_view(lanes.kv(), layer),
                {.lse = lse_.view(),
                 .sums = every_row ? sums_.view() : scratch.sums.view().slice_cols(0, tokens),
                 .mass = scratch.mass.view().slice_cols(0, tokens),
                 .scores = scratch.scores.view().slice_cols(0, tokens),
                 .squares = scratch.squares.view().slice_cols(0, tokens),
                 .value_norms = scratch.value_norms.view().slice_cols(0, tokens),
                 .other_scores = scratch.other_scores.view().slice_cols(0, tokens),
                 .lane_state = scratch.state.view().slice_cols(0, state)},
                *steps_);
}

absl::StatusOr<std::vector<int32_t>> Compressor::select(const Cut& cut, int32_t layer) {
  const SelectionInput input = selection_input(cut, layer);
  if (cuts_layer(layer)) return select_entries(input);
  const bool stays = std::all_of(cut.targets.begin(), cut.targets.end(), [&](const Target& target) {
    return target.sequence == cut.from && target.evictor == nullptr && !cut.cache.converts(cut.from);
  });
  if (!stays) select_everything(input);
  return std::vector<int32_t>(input.budgets.size(), options_.prompt_tokens);
}

SelectionInput Compressor::selection_input(const Cut& cut, int32_t layer) const {
  return {.backend = backend_,
          .plan = plan_,
          .budget = options_.budget,
          .budgets = layer_budgets(layer),
          .layer = layer,
          .tokens = options_.prompt_tokens,
          .scratch = cut.scratch,
          .recalls = recalls_ ? recalls_.view().slice_rows(layer, 1) : TensorView{}};
}

void Compressor::tell_evictor(int32_t layer, const CompressorScratch& scratch, std::span<const int32_t> counts,
                              Evictor& evictor) {
  const DecodeRule::Scoring scoring = policy_.decode_rule().scoring();
  const int32_t tokens = options_.prompt_tokens;
  const bool scored = scores_layer(layer);
  // What goes on being added up are the sums, not what was ranked; and a window that was not ranked has no scores.
  const TensorView& scores = scoring == DecodeRule::Scoring::kEveryStep ? scratch.mass.view() : scratch.scores.view();
  const int32_t known = !scored                                        ? 0
                        : scoring == DecodeRule::Scoring::kAtIntervals ? std::max(0, tokens - plan_.window_tokens)
                                                                       : tokens;
  evictor.set_layer(
      layer, {.tokens = tokens, .counts = counts, .kept = scratch.kept.view(), .scores = scores, .scored = known});
  if (const int64_t state = policy_.lane_state_floats(options_.geometry.head_dim); state > 0) {
    backend_.copy(evictor.lane_states(layer), scratch.state.view().slice_cols(0, state));
  }
  if (scoring == DecodeRule::Scoring::kAtIntervals) keep_newest_rows(layer, evictor);
}

void Compressor::keep_newest_rows(int32_t layer, Evictor& evictor) {
  const TensorView ring = evictor.ring(layer);
  for (size_t i = 0; i < rows_.size(); ++i) {
    if (turn_of(rows_[i]) != 0) continue;
    backend_.copy(ring.slice_rows(rows_[i].position % ring.rows, 1),
                  observed_q_.view().slice_rows(static_cast<int64_t>(i), 1));
  }
}

}  // namespace pkv
