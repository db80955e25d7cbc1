// Counts multiply-adds.
#include "server/engine/prompt_work.h"

#include <algorithm>

namespace pkv {
namespace {

// Attention of a decoded row, which reads every entry for itself, against that of a prompt's rows, which share it.
constexpr int64_t kDecodedAttention = 3;

}  // namespace

int64_t layer_row_work(const ModelShape& shape) {
  const int64_t width = shape.width;
  const int64_t attention = 2 * width * shape.head_dim * (shape.q_heads + shape.kv_heads);
  return attention + 3 * width * shape.feed_forward;
}

int64_t head_row_work(const ModelShape& shape) { return int64_t{shape.width} * shape.vocab_size; }

int64_t model_row_work(const ModelShape& shape) { return shape.layers * layer_row_work(shape) + head_row_work(shape); }

int64_t PromptWork::rows(int32_t first, int32_t rows) const {
  const auto pairs_of = [](int64_t before, int64_t count) { return count * before + count * (count + 1) / 2; };
  const int32_t dense = std::clamp(most_seen - first, 0, rows);  // rows that attend to all before them
  const int64_t attended = pairs_of(first, dense) + int64_t{rows - dense} * most_seen;
  return std::max(rows, least_rows) * row + attended * pair + pairs_of(first, rows) * observed;
}

int32_t PromptWork::rows_within(int64_t work, int32_t first, int32_t most) const {
  int32_t fits = 1, over = most + 1;
  while (over - fits > 1) {
    const int32_t middle = fits + (over - fits) / 2;
    (rows(first, middle) <= work ? fits : over) = middle;
  }
  return fits;
}

int64_t PromptWork::whole(int32_t tokens, int32_t layers) const {
  return layers * (rows(0, tokens) + cut) + tokens * head_row;
}

StepWork::StepWork(const ModelShape& shape, const EngineOptions& options)
    : model_row_(model_row_work(shape)),
      attended_token_(kDecodedAttention * 2 * shape.layers * shape.q_heads * shape.head_dim),
      least_(options.step_rows * model_row_),
      alone_(std::max(least_, 2 * options.prefill_chunk_rows * layer_row_work(shape))) {}

int64_t StepWork::beside(size_t decoded_rows, int64_t attended) const {
  if (decoded_rows == 0) return alone_;
  return std::max(least_, static_cast<int64_t>(decoded_rows) * model_row_) + attended * attended_token_;
}

}  // namespace pkv
