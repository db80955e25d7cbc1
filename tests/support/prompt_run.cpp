// The smallest driver of model and cache: one sequence, nothing evicted but by hand.
#include "tests/support/prompt_run.h"

#include <algorithm>
#include <numeric>

#include "server/cache/layer_lanes.h"

namespace pkv {
namespace {

constexpr int32_t kChunkRows = 256;
constexpr int32_t kPageBytes = 4096;

}  // namespace

absl::StatusOr<std::unique_ptr<PromptRun>> PromptRun::create(const Model& model, KvDtype dtype, int32_t max_tokens) {
  const ModelShape& shape = model.shape();
  Backend& backend = model.backend();
  const CacheGeometry geometry{shape.layers, shape.kv_heads, shape.head_dim, kPageBytes};
  const uint64_t pages = uint64_t(shape.layers) * shape.kv_heads * geometry.layout(dtype).pages_for(max_tokens);
  std::unique_ptr<PromptRun> run(new PromptRun(model));
  auto cache = KvCache::create(backend, geometry, pages * kPageBytes);
  if (!cache.ok()) return cache.status();
  run->cache_ = *std::move(cache);
  const std::vector<int32_t> limits(static_cast<size_t>(shape.layers) * shape.kv_heads, max_tokens);
  auto sequence = run->cache_->open({.dtype = dtype, .lane_entries = limits});
  if (!sequence.ok()) return sequence.status();
  run->sequence_ = *sequence;
  auto buffer = StepBuffer::create(*run->cache_, {.rows = max_tokens, .spans = 1});
  if (!buffer.ok()) return buffer.status();
  run->buffer_.emplace(*std::move(buffer));
  auto scratch = model.make_scratch(kChunkRows);
  auto x = backend.allocate(max_tokens, shape.width, DType::kF32);
  auto normed = backend.allocate(kLogitRows, shape.width, DType::kF32);
  auto logits = backend.allocate(kLogitRows, shape.vocab_size, DType::kF32);
  for (const absl::Status& status : {scratch.status(), x.status(), normed.status(), logits.status()}) {
    if (!status.ok()) return status;
  }
  run->scratch_ = *std::move(scratch);
  run->x_ = *std::move(x);
  run->normed_ = *std::move(normed);
  run->logits_ = *std::move(logits);
  return run;
}

absl::Status PromptRun::run_layer(int32_t layer, int32_t first_row, const TensorView& rows, Phase phase,
                                  const Observer& observer) {
  const int32_t count = static_cast<int32_t>(rows.rows);
  if (absl::Status status = cache_->append_slots(sequence_, layer, count); !status.ok()) return status;
  buffer_->begin(phase, {.rows = count, .spans = 1}, layer);
  std::iota(buffer_->positions(), buffer_->positions() + count, first_row);
  std::copy_n(buffer_->positions(), count, buffer_->angles());
  buffer_->spans()[0] = {.first_row = 0, .rows = count, .first_lane = 0};
  cache_->view(sequence_, layer, count, buffer_->lanes());
  const StepPlan plan = buffer_->commit();
  model_.run_layer(plan, layer, rows, scratch_, {.outputs = count});
  if (observer) observer(layer, first_row, scratch_.q.rows(count), plan.view(layer));
  return absl::OkStatus();
}

void PromptRun::embed(std::span<const int32_t> tokens, const TensorView& x) {
  const auto count = static_cast<int32_t>(tokens.size());
  buffer_->begin(Phase::kPrefill, {.rows = count, .spans = 1}, 0);
  std::copy_n(tokens.begin(), count, buffer_->token_ids());
  cache_->view(sequence_, 0, 0, buffer_->lanes());
  model_.embed(buffer_->commit().token_ids, x);
}

absl::Status PromptRun::prefill(std::span<const int32_t> prompt, const Observer& observer) {
  const int32_t n = static_cast<int32_t>(prompt.size());
  const TensorView x = x_.rows(n);
  embed(prompt, x);
  for (int32_t layer = 0; layer < model_.shape().layers; ++layer) {
    for (int32_t row = 0; row < n; row += kChunkRows) {
      const TensorView rows = x.slice_rows(row, std::min(kChunkRows, n - row));
      if (absl::Status status = run_layer(layer, row, rows, Phase::kPrefill, observer); !status.ok()) return status;
    }
  }
  length_ = n;
  return absl::OkStatus();
}

std::vector<float> PromptRun::prompt_logits(int32_t first, int32_t count) {
  std::vector<float> host(static_cast<size_t>(count) * model_.shape().vocab_size);
  model_.logits(x_.view().slice_rows(first, count), Phase::kPrefill, normed_.rows(count), logits_.rows(count));
  model_.backend().fetch({host.data(), logits_.rows(count)});
  return host;
}

absl::StatusOr<std::vector<float>> PromptRun::decode(int32_t token) {
  const TensorView x = x_.rows(1);
  embed({&token, 1}, x);
  for (int32_t layer = 0; layer < model_.shape().layers; ++layer) {
    if (absl::Status status = run_layer(layer, length_, x, Phase::kDecode); !status.ok()) return status;
  }
  ++length_;
  std::vector<float> host(model_.shape().vocab_size);
  model_.logits(x, Phase::kDecode, normed_.rows(1), logits_.rows(1));
  model_.backend().fetch({host.data(), logits_.rows(1)});
  return host;
}

absl::Status PromptRun::remove_slot(int32_t slot) {
  Backend& backend = model_.backend();
  const int32_t kv_heads = model_.shape().kv_heads;
  for (int32_t layer = 0; layer < model_.shape().layers; ++layer) {
    const LayerLanes lanes(*cache_, {sequence_}, layer);
    const int32_t length = cache_->length(sequence_, layer, 0);
    std::vector<int32_t> stay(length);
    std::iota(stay.begin(), stay.end(), 0);
    stay.erase(stay.begin() + slot);
    auto kept = backend.allocate(kv_heads, length - 1, DType::kI32);
    if (!kept.ok()) return kept.status();
    auto counts = backend.allocate(1, kv_heads, DType::kI32);
    if (!counts.ok()) return counts.status();
    for (int32_t head = 0; head < kv_heads; ++head) backend.upload(kept->view().slice_rows(head, 1), stay.data());
    backend.upload(counts->view(), std::vector<int32_t>(static_cast<size_t>(kv_heads), length - 1).data());
    backend.gather(lanes.kv(), 0, kept->view(), counts->view(), 0);
    cache_->cut(sequence_, layer, std::vector<int32_t>(static_cast<size_t>(kv_heads), length - 1));
  }
  return absl::OkStatus();
}

}  // namespace pkv
