// Group reduction, pooling and exact top-k by radix selection.
#include "kernels/cpu/lanes/select.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>

#include "kernels/check.h"

namespace pkv {
namespace {

// Unsigned integers in the order of the scores.
uint32_t score_key(float score) {
  if (std::isnan(score)) score = -std::numeric_limits<float>::infinity();
  const uint32_t bits = std::bit_cast<uint32_t>(score + 0.0f);  // -0 becomes 0
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

struct Threshold {
  uint32_t key;   // of the worst kept score
  int32_t equal;  // how many of the columns with that key are kept
};

// The count-th largest key of `scores`, found digit by digit from the top.
Threshold find_threshold(const float* scores, int64_t columns, int32_t count) {
  constexpr int kDigits[] = {11, 11, 10};
  uint32_t prefix = 0;
  int32_t wanted = count;
  int shift = 32;
  for (const int digit : kDigits) {
    std::array<int32_t, 2048> histogram{};
    const int above = shift;
    shift -= digit;
    const uint32_t mask = (1u << digit) - 1;
    for (int64_t j = 0; j < columns; ++j) {
      const uint32_t key = score_key(scores[j]);
      if (above == 32 || key >> above == prefix) ++histogram[key >> shift & mask];
    }
    uint32_t bin = mask;
    for (; histogram[bin] < wanted; --bin) wanted -= histogram[bin];
    prefix = prefix << digit | bin;
  }
  return {prefix, wanted};
}

void select_row(const float* scores, int64_t columns, int32_t count, int32_t* kept) {
  if (count == 0) return;
  const Threshold threshold = find_threshold(scores, columns, count);
  int32_t equal = threshold.equal;
  for (int32_t j = 0; count > 0; ++j) {
    const uint32_t key = score_key(scores[j]);
    if (key > threshold.key || (key == threshold.key && equal-- > 0)) {
      *kept++ = j;
      --count;
    }
  }
}

void pool_row(const float* scores, int64_t columns, PoolKind kind, int32_t kernel, float* out) {
  const int64_t half = kind == PoolKind::kNone ? 0 : kernel / 2;
  std::copy_n(scores, columns, out);
  if (half == 0) return;
  if (kind == PoolKind::kAvg) std::fill_n(out, columns, 0.0f);
  for (int64_t offset = -half; offset <= half; ++offset) {
    const int64_t begin = std::max<int64_t>(0, -offset);
    const int64_t end = std::min(columns, columns - offset);
    for (int64_t j = begin; j < end; ++j) {
      const float other = scores[j + offset];
      out[j] = kind == PoolKind::kAvg ? out[j] + other : (out[j] < other ? other : out[j]);
    }
  }
  if (kind == PoolKind::kAvg) {
    for (int64_t j = 0; j < columns; ++j) out[j] /= static_cast<float>(kernel);
  }
}

}  // namespace

void cpu_reduce_groups(const TensorView& sums, GroupReduce reduce, const TensorView& out, ThreadPool& pool) {
  const int64_t group = sums.rows / out.rows;
  PKV_CHECK(group * out.rows == sums.rows, "query heads are a multiple of KV heads");
  pool.run(out.rows, [&](int64_t row, int32_t) {
    float* to = out.f32_row(row);
    std::copy_n(sums.f32_row(row * group), out.cols, to);
    for (int64_t g = 1; g < group; ++g) {
      const float* from = sums.f32_row(row * group + g);
      for (int64_t j = 0; j < out.cols; ++j) {
        to[j] = reduce == GroupReduce::kMax ? (to[j] < from[j] ? from[j] : to[j]) : to[j] + from[j];
      }
    }
    if (reduce == GroupReduce::kMean) {
      for (int64_t j = 0; j < out.cols; ++j) to[j] /= static_cast<float>(group);
    }
  });
}

void cpu_pool_scores(const TensorView& scores, PoolKind kind, int32_t kernel, const TensorView& out, ThreadPool& pool) {
  PKV_CHECK(kind == PoolKind::kNone || kernel % 2 == 1, "pooling kernels are odd");
  pool.run(scores.rows,
           [&](int64_t row, int32_t) { pool_row(scores.f32_row(row), scores.cols, kind, kernel, out.f32_row(row)); });
}

void cpu_score_entries(const EntryScoring& scoring, const TensorView& scores, ThreadPool& pool) {
  const auto columns = static_cast<int32_t>(scores.cols);
  pool.run(scores.rows, [&](int64_t row, int32_t) {
    float* score = scores.f32_row(row);
    for (int32_t j = 0; j < columns; ++j) {
      score[j] = score_entry(scoring, static_cast<int32_t>(row), j, columns, score[j]);
    }
  });
}

void cpu_select_top(const TensorView& scores, int32_t count, const TensorView& kept, ThreadPool& pool) {
  PKV_CHECK(count >= 0 && count <= scores.cols && count <= kept.cols, "cannot keep more columns than there are");
  pool.run(scores.rows,
           [&](int64_t row, int32_t) { select_row(scores.f32_row(row), scores.cols, count, kept.i32_row(row)); });
}

}  // namespace pkv
