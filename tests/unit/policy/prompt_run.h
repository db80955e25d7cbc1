// Plays the engine for tests: puts prompts through layers of a cache, chunk by chunk, with a compressor watching.
#pragma once

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "server/policy/compressor.h"
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
  PromptRun(Backend& backend, KvCache& cache, const Planned& planned, const CompressorOptions& options,
            KvDtype dtype = KvDtype::kF32)
      : backend_(backend), cache_(cache), options_(options), sequence_(cache.open(dtype)) {
    auto compressor = Compressor::create(backend, *planned.policy, planned.plan, options);
    auto scratch = CompressorScratch::create(backend, options.q_heads, options.geometry,
                                             options.prompt_tokens + 3);  // wider than the prompt, as the engine's is
    EXPECT_TRUE(compressor.ok() && scratch.ok());
    compressor_ = *std::move(compressor);
    scratch_ = *std::move(scratch);
  }

  SequenceId sequence() const { return sequence_; }
  const Compressor& compressor() const { return *compressor_; }

  // Writes the layer's rows, `chunk` at a time, and cuts it.
  LayerOutcome run_layer(int32_t layer, const LayerRows& rows, int32_t chunk) {
    const Tensor q = upload(rows.q), k = upload(rows.k), v = upload(rows.v);
    for (int32_t first = 0; first < options_.prompt_tokens; first += chunk) {
      const int32_t count = std::min(chunk, options_.prompt_tokens - first);
      write(layer, k.view().slice_rows(first, count), v.view().slice_rows(first, count), first);
      std::vector<Lane> lanes;
      std::vector<int32_t> page_ids;
      compressor_->observe(q.view().slice_rows(first, count), view(layer, count, lanes, page_ids), first);
    }
    const Compressor::Target target{sequence_, nullptr};
    auto outcome = compressor_->finish_layer(
        {.cache = cache_, .from = sequence_, .targets = {&target, 1}, .scratch = *scratch_}, layer);
    EXPECT_TRUE(outcome.ok()) << outcome.status();
    return *std::move(outcome);
  }

  // The values of a lane's entries in slot order, first dimension only. f32 entries.
  std::vector<float> first_dimension(int32_t layer, int32_t kv_head, bool values) const {
    std::vector<Lane> lanes;
    std::vector<int32_t> page_ids;
    const KvView kv = view(layer, 0, lanes, page_ids);
    const Lane& lane = lanes[static_cast<size_t>(kv_head)];
    const PageLayout layout = page_layout(kv, lane);
    std::vector<float> result;
    for (int32_t slot = 0; slot < lane.length; ++slot) {
      const std::byte* page = kv.page(lane, slot / layout.slots());
      const int32_t place = slot % layout.slots();
      const int32_t offset = values ? layout.value_at(place, 0) : layout.key_at(place, 0);
      result.push_back(*reinterpret_cast<const float*>(page + offset));
    }
    return result;
  }

 private:
  Tensor upload(const std::vector<float>& rows) {
    auto tensor = backend_.allocate(options_.prompt_tokens, static_cast<int64_t>(rows.size()) / options_.prompt_tokens,
                                    DType::kF32);
    EXPECT_TRUE(tensor.ok());
    backend_.upload(tensor->view(), rows.data());
    return *std::move(tensor);
  }

  KvView view(int32_t layer, int32_t rows, std::vector<Lane>& lanes, std::vector<int32_t>& page_ids) const {
    cache_.view(sequence_, layer, rows, lanes, page_ids);
    KvView result = cache_.base_view();
    result.lanes = lanes.data();
    result.lane_count = static_cast<int32_t>(lanes.size());
    result.page_ids = page_ids.data();
    return result;
  }

  void write(int32_t layer, const TensorView& k, const TensorView& v, int32_t first) {
    const auto count = static_cast<int32_t>(k.rows);
    ASSERT_TRUE(cache_.append_slots(sequence_, layer, count).ok());
    std::vector<Lane> lanes;
    std::vector<int32_t> page_ids, positions;
    for (int32_t row = 0; row < count; ++row) positions.push_back(first + row);
    const KvView kv = view(layer, count, lanes, page_ids);
    const RowSpan span{.first_row = 0, .rows = count, .first_lane = 0};
    backend_.write_kv(k, v, positions.data(), kv, {&span, 1}, options_.geometry.kv_heads);
  }

  Backend& backend_;
  KvCache& cache_;
  CompressorOptions options_;
  SequenceId sequence_;
  std::unique_ptr<Compressor> compressor_;
  std::unique_ptr<CompressorScratch> scratch_;
};

}  // namespace pkv
