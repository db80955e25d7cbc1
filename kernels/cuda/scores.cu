// Scores of entries: over the query heads of a KV head, pooled along slots, made or changed one by one. Sums are
// float64 in ascending order and rounded once, as the reference has them: selections are then the same.
#include "kernels/cuda/gpu.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"

namespace pkv::gpu {
namespace {

constexpr int32_t kThreads = 256;

// Blocks (x, y): columns x * kThreads and following of row y, a thread a column.
__device__ int64_t column_of_thread() { return int64_t{blockIdx.x} * kThreads + threadIdx.x; }
LaunchShape thread_a_column(const TensorView& out) {
  return {.blocks = blocks_for(out.cols, kThreads), .threads = kThreads, .blocks_y = out.rows};
}

__global__ void reduce_groups_kernel(TensorView sums, GroupReduce reduce, TensorView out, int32_t group) {
  const int64_t column = column_of_thread();
  if (column >= out.cols) return;
  double sum = 0;
  float highest = -INFINITY;
  for (int32_t h = 0; h < group; ++h) {
    const float value = sums.f32_row(int64_t{blockIdx.y} * group + h)[column];
    sum += value;
    highest = Max{}(highest, value);
  }
  out.f32_row(blockIdx.y)[column] = reduce == GroupReduce::kMax   ? highest
                                    : reduce == GroupReduce::kSum ? static_cast<float>(sum)
                                                                  : static_cast<float>(sum / group);
}

__global__ void weigh_groups_kernel(TensorView squares, TensorView weights, float scale, TensorView out,
                                    int32_t group) {
  const int64_t column = column_of_thread();
  if (column >= out.cols) return;
  double sum = 0;
  for (int32_t h = 0; h < group; ++h) {
    const int64_t row = int64_t{blockIdx.y} * group + h;
    const double weight = weights.f32_row(row)[column];
    sum += squares.f32_row(row)[column] * weight * weight;
  }
  out.f32_row(blockIdx.y)[column] = static_cast<float>(sqrt(scale * sum));
}

// 1 over the mean of a row; 0 where that is not above 0. All threads of the block.
__device__ double mean_factor(const float* row, int64_t columns) {
  double sum = 0;
  for (int64_t j = threadIdx.x; j < columns; j += kThreads) sum += row[j];
  const double mean = block_sum(sum) / static_cast<double>(columns);
  return mean > 0 ? 1 / mean : 0.0;
}

// A block a row.
__global__ void __launch_bounds__(kThreads) merge_scores_kernel(TensorView other, bool by_mean, TensorView scores) {
  float* row = scores.f32_row(blockIdx.x);
  const float* beside = other.f32_row(blockIdx.x);
  double own = 1, others = 1;
  if (by_mean) {
    own = mean_factor(row, scores.cols);
    others = mean_factor(beside, scores.cols);
  }
  for (int64_t j = threadIdx.x; j < scores.cols; j += kThreads) {
    const double a = row[j] * own, b = beside[j] * others;
    row[j] = static_cast<float>(a < b ? b : a);
  }
}

__global__ void pool_scores_kernel(TensorView scores, PoolKind kind, int32_t kernel, TensorView out) {
  const int64_t column = column_of_thread();
  if (column >= out.cols) return;
  const int32_t reach = kind == PoolKind::kNone ? 0 : kernel / 2;
  const int64_t first = max(int64_t{0}, column - reach), last = min(scores.cols - 1, column + reach);
  const float* from = scores.f32_row(blockIdx.y);
  double sum = 0;
  float highest = -INFINITY;
  for (int64_t j = first; j <= last; ++j) {
    sum += from[j];
    highest = Max{}(highest, from[j]);
  }
  out.f32_row(blockIdx.y)[column] = kind == PoolKind::kAvg ? static_cast<float>(sum / kernel) : highest;
}

__global__ void score_entries_kernel(EntryScoring scoring, TensorView scores) {
  const int64_t column = column_of_thread();
  if (column >= scores.cols) return;
  float& score = scores.f32_row(blockIdx.y)[column];
  score = score_entry(scoring, static_cast<int32_t>(blockIdx.y), static_cast<int32_t>(column),
                      static_cast<int32_t>(scores.cols), score);
}

__global__ void take_columns_kernel(TensorView from, TensorView columns, TensorView out) {
  const int64_t i = column_of_thread();
  if (i < out.cols) out.f32_row(blockIdx.y)[i] = from.f32_row(blockIdx.y)[columns.i32_row(blockIdx.y)[i]];
}

}  // namespace

void reduce_groups(Stream& stream, const TensorView& sums, GroupReduce reduce, const TensorView& out) {
  const auto group = static_cast<int32_t>(sums.rows / out.rows);
  launch(stream, "reduce_groups", thread_a_column(out), reduce_groups_kernel, sums, reduce, out, group);
}

void weigh_groups(Stream& stream, const TensorView& squares, const TensorView& weights, float scale,
                  const TensorView& out) {
  const auto group = static_cast<int32_t>(squares.rows / out.rows);
  launch(stream, "weigh_groups", thread_a_column(out), weigh_groups_kernel, squares, weights, scale, out, group);
}

void merge_scores(Stream& stream, const TensorView& other, bool by_mean, const TensorView& scores) {
  launch(stream, "merge_scores", {.blocks = scores.rows, .threads = kThreads}, merge_scores_kernel, other, by_mean,
         scores);
}

void pool_scores(Stream& stream, const TensorView& scores, PoolKind kind, int32_t kernel, const TensorView& out) {
  launch(stream, "pool_scores", thread_a_column(out), pool_scores_kernel, scores, kind, kernel, out);
}

void score_entries(Stream& stream, const EntryScoring& scoring, const TensorView& scores) {
  launch(stream, "score_entries", thread_a_column(scores), score_entries_kernel, scoring, scores);
}

void take_columns(Stream& stream, const TensorView& from, const TensorView& columns, const TensorView& out) {
  launch(stream, "take_columns", thread_a_column(out), take_columns_kernel, from, columns, out);
}

}  // namespace pkv::gpu
