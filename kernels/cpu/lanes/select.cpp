// Group reduction, pooling, exact top-k by radix selection, and what that leaves of the attention.
#include "kernels/cpu/lanes/select.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "kernels/check.h"
#include "kernels/cpu/parallel.h"

namespace pkv {
namespace {

// A score that is made or hashed, and one that three passes of a selection look at, against an element read and
// written.
constexpr int64_t kScoredElement = 8;
constexpr int64_t kSelectedElement = 16;

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
  std::copy_n(scores, columns, out);
  if (kind == PoolKind::kNone) return;
  const int64_t half = std::min<int64_t>(kernel / 2, columns - 1);
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
  parallel_for(pool, out.rows, sums.cols * group, [&](int64_t row) {
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

void cpu_weigh_groups(const TensorView& squares, const TensorView& weights, float scale, const TensorView& out,
                      ThreadPool& pool) {
  const int64_t group = squares.rows / out.rows;
  PKV_CHECK(group * out.rows == squares.rows && weights.rows == squares.rows, "query heads are a multiple of KV heads");
  parallel_for(pool, out.rows, 2 * out.cols * group, [&](int64_t row) {
    float* to = out.f32_row(row);
    std::fill_n(to, out.cols, 0.0f);
    for (int64_t g = 0; g < group; ++g) {
      const float *square = squares.f32_row(row * group + g), *weight = weights.f32_row(row * group + g);
      for (int64_t j = 0; j < out.cols; ++j) to[j] += square[j] * (weight[j] * weight[j]);
    }
    for (int64_t j = 0; j < out.cols; ++j) to[j] = std::sqrt(scale * to[j]);
  });
}

void cpu_merge_scores(const TensorView& other, bool by_mean, const TensorView& scores, ThreadPool& pool) {
  PKV_CHECK(other.rows == scores.rows && other.cols == scores.cols, "scores of the same entries");
  const auto factor = [by_mean](const float* row, int64_t columns) {
    if (!by_mean) return 1.0f;
    const double mean = std::accumulate(row, row + columns, 0.0) / static_cast<double>(columns);
    return mean > 0 ? static_cast<float>(1 / mean) : 0.0f;
  };
  parallel_for(pool, scores.rows, 4 * scores.cols, [&](int64_t g) {
    float* row = scores.f32_row(g);
    const float* beside = other.f32_row(g);
    const float own = factor(row, scores.cols), others = factor(beside, scores.cols);
    for (int64_t j = 0; j < scores.cols; ++j) row[j] = std::max(row[j] * own, beside[j] * others);
  });
}

void cpu_pool_scores(const TensorView& scores, PoolKind kind, int32_t kernel, const TensorView& out, ThreadPool& pool) {
  PKV_CHECK(kind == PoolKind::kNone || kernel % 2 == 1, "pooling kernels are odd");
  parallel_for(pool, scores.rows, scores.cols * std::max(kernel, 1),
               [&](int64_t row) { pool_row(scores.f32_row(row), scores.cols, kind, kernel, out.f32_row(row)); });
}

void cpu_score_entries(const EntryScoring& scoring, const TensorView& scores, ThreadPool& pool) {
  const auto columns = static_cast<int32_t>(scores.cols);
  parallel_for(pool, scores.rows, kScoredElement * scores.cols, [&](int64_t row) {
    float* score = scores.f32_row(row);
    for (int32_t j = 0; j < columns; ++j) {
      score[j] = score_entry(scoring, static_cast<int32_t>(row), j, columns, score[j]);
    }
  });
}

void cpu_select_top(const TensorView& scores, int32_t window, const TensorView& counts, const TensorView& kept,
                    ThreadPool& pool) {
  PKV_CHECK(counts.cols == scores.rows && kept.rows == scores.rows, "a count for each lane");
  const int64_t past = scores.cols - window;
  parallel_for(pool, scores.rows, kSelectedElement * scores.cols, [&](int64_t row) {
    const int32_t count = counts.i32()[row], ranked = count - window;
    PKV_CHECK(ranked >= 0 && count <= scores.cols && count <= kept.cols, "entries between the window and all");
    select_row(scores.f32_row(row), past, ranked, kept.i32_row(row));
    std::iota(kept.i32_row(row) + ranked, kept.i32_row(row) + count, static_cast<int32_t>(past));
  });
}

// The best of each lane, as many as one may have, side by side: the best of these are the best of all. They lie lane
// after lane with ascending columns, so the smaller place among equals is the smaller lane, then the smaller column.
void cpu_share_layer(const TensorView& scores, const LayerShare& share, const TensorView& counts, ThreadPool& pool) {
  const int64_t lanes = scores.rows, past = scores.cols - share.window;
  PKV_CHECK(counts.cols == lanes, "a count for each lane");
  PKV_CHECK(share.smallest_lane >= share.window && share.largest_lane >= share.smallest_lane &&
                share.total >= lanes * share.smallest_lane,
            "a total that every lane has its part of");
  const int64_t each = std::min<int64_t>(share.largest_lane - share.window, past);
  std::vector<int32_t> columns(static_cast<size_t>(lanes * each));
  std::vector<float> best(columns.size());
  parallel_for(pool, lanes, kSelectedElement * scores.cols, [&](int64_t row) {
    const float* score = scores.f32_row(row);
    int32_t* own = columns.data() + row * each;
    select_row(score, past, static_cast<int32_t>(each), own);
    float* own_best = best.data() + row * each;
    std::transform(own, own + each, own_best, [score](int32_t column) { return score[column]; });
    const auto always = static_cast<int32_t>(std::min<int64_t>(share.smallest_lane - share.window, each));
    std::vector<int32_t> places(static_cast<size_t>(always));
    select_row(own_best, each, always, places.data());
    for (const int32_t place : places) own_best[place] = std::numeric_limits<float>::infinity();
  });
  const int64_t ranked = std::min(share.total - lanes * share.window, lanes * each);
  std::vector<int32_t> chosen(static_cast<size_t>(ranked));
  select_row(best.data(), lanes * each, static_cast<int32_t>(ranked), chosen.data());
  std::fill_n(counts.i32(), lanes, share.window);
  for (const int32_t place : chosen) ++counts.i32()[place / each];
}

void cpu_count_for_recall(const TensorView& scores, const TensorView& mass, const RecallShare& share,
                          const TensorView& counts, const TensorView& recalls, ThreadPool& pool) {
  PKV_CHECK(counts.cols == scores.rows && recalls.cols == scores.rows, "a count and a recall for each lane");
  constexpr float kAlways = std::numeric_limits<float>::infinity();
  const uint32_t always = score_key(kAlways);
  parallel_for(pool, scores.rows, 4 * kSelectedElement * scores.cols, [&](int64_t row) {
    // Rank and column in one integer, the best the smallest.
    std::vector<uint64_t> order(static_cast<size_t>(scores.cols));
    for (int64_t j = 0; j < scores.cols; ++j) {
      const uint32_t key = j < scores.cols - share.window ? score_key(scores.f32_row(row)[j]) : always;
      order[static_cast<size_t>(j)] = uint64_t{~key} << 32 | static_cast<uint64_t>(j);
    }
    std::sort(order.begin(), order.end());
    const auto mass_at = [&](size_t rank) -> double { return mass.f32_row(row)[static_cast<uint32_t>(order[rank])]; };
    double total = 0, carried = 0;
    for (size_t rank = 0; rank < order.size(); ++rank) total += mass_at(rank);
    const size_t most = std::min(order.size(), static_cast<size_t>(share.largest_lane));
    size_t count = 0;
    while (count < most && (order[count] >> 32 == ~always || carried / total < share.recall)) {
      carried += mass_at(count++);
    }
    counts.i32()[row] = static_cast<int32_t>(count);
    recalls.f64()[row] = carried / total;
  });
}

void cpu_recall(const TensorView& mass, const TensorView& kept, const TensorView& counts, const TensorView& recalls,
                ThreadPool& pool) {
  PKV_CHECK(counts.cols == mass.rows && recalls.cols == mass.rows, "a count and a recall for each lane");
  parallel_for(pool, mass.rows, mass.cols, [&](int64_t row) {
    const float* of_lane = mass.f32_row(row);
    const int32_t* columns = kept.i32_row(row);
    const double total = std::accumulate(of_lane, of_lane + mass.cols, 0.0);
    const double carried = std::accumulate(columns, columns + counts.i32()[row], 0.0,
                                           [of_lane](double sum, int32_t column) { return sum + of_lane[column]; });
    recalls.f64()[row] = carried / total;
  });
}

}  // namespace pkv
