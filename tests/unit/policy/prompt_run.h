// Plays the engine for tests: puts prompts through layers of a cache, chunk by chunk, with a compressor watching.
#pragma once

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "server/cache/layer_lanes.h"
#include "server/policy/compressor.h"
#include "tests/support/backend_array.h"
#include "tests/unit/policy/policy_specs.h"

namespace pkv {

// What one layer of a model would have computed for a prompt of n tokens.
struct LayerRows {
  std::vector<float> q;  // [n, Hq * d]
  std::vector<float> k;  // [n, Hkv * d]
  std::vector<float> v;  // [n, Hkv * d]
};

class PromptRun {
 public:
  // `planned` must outlive the run.
  PromptRun(Backend& backend, KvCache& cache, const Planned& planned, const Compressor::Options& options,
            KvDtype dtype = KvDtype::kF32)
      : backend_(backend), cache_(cache), options_(options) {
    const std::vector<int32_t> limits(
        static_cast<size_t>(options.geometry.layers) * static_cast<size_t>(options.geometry.kv_heads),
        options.prompt_tokens);
    auto sequence = cache.open({.dtype = dtype,
                                .lane_entries = limits,
                                .layer_entries = planned.plan.shares_model() ? options.prompt_tokens : 0,
                                .shared_entries = planned.plan.model_limit});
    EXPECT_TRUE(sequence.ok()) << sequence.status();
    sequence_ = *sequence;
    if (planned.policy->weighs_values() && options.value_factors.data == nullptr) use_values_as_they_are();
    auto compressor = Compressor::create(backend, *planned.policy, planned.plan, options_);
    auto scratch = CompressorScratch::create(backend, options.q_heads, options.geometry,
                                             options.prompt_tokens + 3);  // wider than the prompt, as the engine's is
    EXPECT_TRUE(compressor.ok() && scratch.ok());
    compressor_ = *std::move(compressor);
    scratch_ = *std::move(scratch);
  }

  SequenceId sequence() const { return sequence_; }
  const Compressor& compressor() const { return *compressor_; }

  // Writes the layer's rows, `chunk` at a time, and cuts it. Layers come in order.
  void cut_layer(int32_t layer, const LayerRows& rows, int32_t chunk) {
    const Tensor q = upload(rows.q), k = upload(rows.k), v = upload(rows.v);
    for (int32_t first = 0; first < options_.prompt_tokens; first += chunk) {
      const int32_t count = std::min(chunk, options_.prompt_tokens - first);
      write(layer, k.view().slice_rows(first, count), v.view().slice_rows(first, count), first);
      const LayerLanes lanes(cache_, {sequence_}, layer, count);
      compressor_->observe(q.view().slice_rows(first, count), lanes.kv(), first, /*lse=*/{});
    }
    const Compressor::Target target{sequence_, nullptr};
    const Compressor::Cut cut{.cache = cache_, .from = sequence_, .targets = {&target, 1}, .scratch = *scratch_};
    compressor_->begin_cut(cut, layer);
    std::optional<LayerOutcome> outcome;
    while (!outcome) {
      auto step = compressor_->cut_step(cut, layer);
      ASSERT_TRUE(step.ok()) << step.status();
      outcome = *std::move(step);
    }
    outcomes_.resize(static_cast<size_t>(layer));
    outcomes_.push_back(*std::move(outcome));
  }
  // What is known when the prompt is done, but for positions.
  const std::vector<LayerOutcome>& read_outcomes() {
    std::vector<Fetch> reads;
    compressor_->read_recalls(outcomes_, reads);
    if (!reads.empty()) backend_.fetch(reads);
    return outcomes_;
  }
  // The same of one layer by itself, with positions.
  LayerOutcome run_layer(int32_t layer, const LayerRows& rows, int32_t chunk) {
    cut_layer(layer, rows, chunk);
    LayerOutcome outcome = read_outcomes()[static_cast<size_t>(layer)];
    for (int32_t head = 0; head < options_.geometry.kv_heads; ++head) {
      outcome.kept_positions.push_back(cache_.positions(sequence_, layer, head));
    }
    return outcome;
  }

  // The values of a lane's entries in slot order, first dimension only. f32 entries.
  std::vector<float> first_dimension(int32_t layer, int32_t kv_head, bool values) const {
    const CacheGeometry& geometry = cache_.geometry();
    const PageLayout layout = geometry.layout(cache_.dtype(sequence_));
    const std::span<const int32_t> pages = cache_.page_ids(sequence_, layer, kv_head);
    const KvView kv = cache_.base_view();
    std::vector<float> result(static_cast<size_t>(cache_.length(sequence_, layer, kv_head)));
    for (size_t slot = 0; slot < result.size(); ++slot) {
      const auto slots = static_cast<size_t>(layout.slots());
      const auto place = static_cast<int32_t>(slot % slots);
      std::byte* at = kv.pool + int64_t{pages[slot / slots]} * geometry.page_bytes +
                      (values ? layout.value_at(place, 0) : layout.key_at(place, 0));
      backend_.fetch({&result[slot], {at, DType::kF32, 1, 1, 1}});
    }
    return result;
  }

 private:
  // Every factor is one: what a value weighs is its length.
  void use_values_as_they_are() {
    const auto d = static_cast<size_t>(options_.geometry.head_dim);
    const size_t rows = static_cast<size_t>(options_.geometry.layers * options_.q_heads) * d;
    std::vector<float> factors(rows * d, 0.0f);
    for (size_t row = 0; row < rows; ++row) factors[row * d + row % d] = 1.0f;
    auto tensor = backend_.allocate(static_cast<int64_t>(rows), static_cast<int64_t>(d), DType::kF32);
    EXPECT_TRUE(tensor.ok());
    factors_ = *std::move(tensor);
    backend_.upload(factors_.view(), factors.data());
    options_.value_factors = factors_.view();
  }

  Tensor upload(const std::vector<float>& rows) {
    auto tensor = backend_.allocate(options_.prompt_tokens, static_cast<int64_t>(rows.size()) / options_.prompt_tokens,
                                    DType::kF32);
    EXPECT_TRUE(tensor.ok());
    backend_.upload(tensor->view(), rows.data());
    return *std::move(tensor);
  }

  void write(int32_t layer, const TensorView& k, const TensorView& v, int32_t first) {
    const auto count = static_cast<int32_t>(k.rows);
    ASSERT_TRUE(cache_.append_slots(sequence_, layer, count).ok());
    std::vector<int32_t> positions;
    for (int32_t row = 0; row < count; ++row) positions.push_back(first + row);
    const LayerLanes lanes(cache_, {sequence_}, layer, count);
    const test::BackendArray<RowSpan> span(backend_, {{.first_row = 0, .rows = count, .first_lane = 0}});
    backend_.write_kv(k, v, test::BackendArray<int32_t>(backend_, positions).data(), lanes.kv(), row_spans(span),
                      options_.geometry.kv_heads);
  }

  Backend& backend_;
  KvCache& cache_;
  Compressor::Options options_;
  SequenceId sequence_ = nullptr;
  Tensor factors_;
  std::unique_ptr<Compressor> compressor_;
  std::unique_ptr<CompressorScratch> scratch_;
  std::vector<LayerOutcome> outcomes_;  // of the layers so far
};

}  // namespace pkv
