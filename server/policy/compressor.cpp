// Scratch, observation and the cut of one layer: score, select, compact, shrink.
#include "server/policy/compressor.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "kernels/check.h"

namespace pkv {
namespace {

// The share of a lane's observed attention that its kept columns carry.
double recall_of(std::span<const float> mass, std::span<const int32_t> kept) {
  double total = 0, carried = 0;
  for (float value : mass) total += value;
  for (int32_t column : kept) carried += mass[static_cast<size_t>(column)];
  return carried / total;
}

}  // namespace

absl::StatusOr<std::unique_ptr<CompressorScratch>> CompressorScratch::create(Backend& backend, int32_t q_heads,
                                                                             int32_t kv_heads, int32_t max_tokens) {
  std::unique_ptr<CompressorScratch> scratch(new CompressorScratch());
  struct Wish {
    Tensor* tensor;
    int32_t rows;
    DType dtype;
  };
  for (const Wish& wish :
       {Wish{&scratch->sums, q_heads, DType::kF32}, Wish{&scratch->mass, kv_heads, DType::kF32},
        Wish{&scratch->scores, kv_heads, DType::kF32}, Wish{&scratch->kept, kv_heads, DType::kI32}}) {
    auto tensor = backend.allocate(wish.rows, max_tokens, wish.dtype);
    if (!tensor.ok()) return tensor.status();
    *wish.tensor = *std::move(tensor);
  }
  scratch->max_tokens = max_tokens;
  return scratch;
}

size_t CompressorScratch::bytes() const { return sums.bytes() + mass.bytes() + scores.bytes() + kept.bytes(); }

Compressor::Compressor(Backend& backend, const CachePolicy& policy, const CompressorOptions& options)
    : backend_(backend), policy_(policy), options_(options) {}

absl::StatusOr<std::unique_ptr<Compressor>> Compressor::create(Backend& backend, const CachePolicy& policy,
                                                               const CompressorOptions& options) {
  const int32_t tokens = options.prompt_tokens;
  std::unique_ptr<Compressor> compressor(new Compressor(backend, policy, options));
  compressor->lane_budgets_ = policy.lane_budgets(tokens, options.geometry);
  const std::vector<int32_t>& budgets = compressor->lane_budgets_;
  compressor->compresses_ = std::any_of(budgets.begin(), budgets.end(), [&](int32_t kept) { return kept < tokens; });
  if (!compressor->compresses_) return compressor;

  compressor->rows_ = policy.observe(tokens);
  for (const ObservationRow& row : compressor->rows_) {
    PKV_CHECK(row.position == row.prompt_row, "queries are observed at their own positions only");
    compressor->visible_.push_back(row.position + 1);
  }
  const auto rows = static_cast<int64_t>(compressor->rows_.size());
  const int64_t width = static_cast<int64_t>(options.q_heads) * options.geometry.head_dim;
  auto observed_q = backend.allocate(rows, width, DType::kF32);
  if (!observed_q.ok()) return observed_q.status();
  auto lse = backend.allocate(rows, options.q_heads, DType::kF32);
  if (!lse.ok()) return lse.status();
  compressor->observed_q_ = *std::move(observed_q);
  compressor->lse_ = *std::move(lse);
  return compressor;
}

size_t Compressor::workspace_bytes() const { return observed_q_.bytes() + lse_.bytes(); }

void Compressor::observe(const TensorView& q, int32_t first_row) {
  for (size_t i = 0; i < rows_.size(); ++i) {
    const int64_t row = rows_[i].prompt_row - first_row;
    if (row < 0 || row >= q.rows) continue;
    backend_.copy(observed_q_.view().slice_rows(static_cast<int64_t>(i), 1), q.slice_rows(row, 1));
    ++rows_seen_;
  }
}

LayerOutcome Compressor::finish_layer(KvCache& cache, SequenceId sequence, int32_t layer, CompressorScratch& scratch) {
  PKV_CHECK(rows_seen_ == rows_.size(), "a layer ends before every row was observed");
  rows_seen_ = 0;
  const std::span<const int32_t> budgets = layer_budgets(layer);
  const auto heads = static_cast<int32_t>(budgets.size());
  const int32_t tokens = options_.prompt_tokens;
  for (int32_t head = 0; head < heads; ++head) {
    PKV_CHECK(cache.length(sequence, layer, head) == tokens, "a lane that does not hold the whole prompt");
  }
  if (std::all_of(budgets.begin(), budgets.end(), [&](int32_t kept) { return kept == tokens; })) {
    return keep_everything(layer);
  }

  PKV_CHECK(scratch.max_tokens >= tokens, "scratch for shorter prompts");
  std::vector<Lane> lanes;
  std::vector<int32_t> page_ids;
  cache.view(sequence, layer, 1, lanes, page_ids);
  KvView kv = cache.base_view();
  kv.lanes = lanes.data();
  kv.lane_count = heads;
  kv.page_ids = page_ids.data();

  score_layer(kv, scratch);
  select(budgets, scratch);
  LayerOutcome outcome{.budget_tokens = *std::max_element(budgets.begin(), budgets.end())};
  std::vector<float> mass(static_cast<size_t>(tokens));
  for (int32_t head = 0; head < heads; ++head) {
    const int32_t count = budgets[static_cast<size_t>(head)];
    const TensorView kept_columns = scratch.kept.view().slice_rows(head, 1).slice_cols(0, count);
    std::vector<int32_t> kept(static_cast<size_t>(count));
    backend_.download(kept.data(), kept_columns);
    backend_.download(mass.data(), scratch.mass.view().slice_rows(head, 1).slice_cols(0, tokens));
    outcome.kept.push_back(count);
    outcome.recall.push_back(recall_of(mass, kept));
    backend_.compact(kv, head, kept_columns, count);
    cache.shrink(sequence, layer, head, count);
    if (options_.record_positions) outcome.kept_positions.push_back(std::move(kept));
  }
  return outcome;
}

std::span<const int32_t> Compressor::layer_budgets(int32_t layer) const {
  const auto heads = static_cast<size_t>(options_.geometry.kv_heads);
  return std::span(lane_budgets_).subspan(static_cast<size_t>(layer) * heads, heads);
}

LayerOutcome Compressor::keep_everything(int32_t layer) const {
  const size_t heads = layer_budgets(layer).size();
  LayerOutcome outcome{.budget_tokens = options_.prompt_tokens};
  outcome.kept.assign(heads, options_.prompt_tokens);
  outcome.recall.assign(heads, 1.0);
  if (options_.record_positions) {
    std::vector<int32_t> all(static_cast<size_t>(options_.prompt_tokens));
    std::iota(all.begin(), all.end(), 0);
    outcome.kept_positions.assign(heads, all);
  }
  return outcome;
}

void Compressor::score_layer(const KvView& kv, const CompressorScratch& scratch) {
  const int64_t tokens = options_.prompt_tokens;
  const LayerView layer{.backend = &backend_,
                        .kv = kv,
                        .first_lane = 0,
                        .prompt_tokens = options_.prompt_tokens,
                        .observed_q = observed_q_.view(),
                        .visible = visible_,
                        .q_heads = options_.q_heads,
                        .kv_heads = options_.geometry.kv_heads,
                        .scale = 1.0f / std::sqrt(static_cast<float>(options_.geometry.head_dim))};
  policy_.score(layer, {.lse = lse_.view(),
                        .sums = scratch.sums.view().slice_cols(0, tokens),
                        .mass = scratch.mass.view().slice_cols(0, tokens),
                        .scores = scratch.scores.view().slice_cols(0, tokens)});
}

void Compressor::select(std::span<const int32_t> budgets, const CompressorScratch& scratch) {
  // Neighbouring lanes with equal budgets go to the backend together.
  for (size_t first = 0; first < budgets.size();) {
    size_t end = first + 1;
    while (end < budgets.size() && budgets[end] == budgets[first]) ++end;
    select_lanes(static_cast<int32_t>(first), static_cast<int32_t>(end - first), budgets[first], scratch);
    first = end;
  }
}

void Compressor::select_lanes(int32_t first_lane, int32_t lanes, int32_t budget, const CompressorScratch& scratch) {
  const int32_t tokens = options_.prompt_tokens, window = policy_.window_tokens();
  const int32_t ranked = budget - window;  // entries chosen by score; the window follows them in order
  PKV_CHECK(ranked >= 0 && budget <= tokens, "a budget below the window or beyond the prompt");
  const TensorView kept = scratch.kept.view().slice_rows(first_lane, lanes);
  if (ranked > 0) {
    const TensorView scores = scratch.scores.view().slice_rows(first_lane, lanes);
    backend_.select_top(scores.slice_cols(0, tokens - window), ranked, kept);
  }
  std::vector<int32_t> newest(static_cast<size_t>(window));
  std::iota(newest.begin(), newest.end(), tokens - window);
  for (int32_t lane = 0; lane < lanes; ++lane) {
    backend_.upload(kept.slice_rows(lane, 1).slice_cols(ranked, window), newest.data());
  }
  backend_.sync();  // `newest` goes out of scope
}

}  // namespace pkv
