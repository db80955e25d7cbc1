// The reference backend's scores of entries and selection of slots: group reduction, pooling and top-k.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/check.h"
#include "kernels/reference/reference_backend.h"

namespace pkv {

void ReferenceBackend::reduce_groups(const TensorView& sums, GroupReduce reduce, const TensorView& out) {
  PKV_CHECK(out.rows > 0 && sums.rows % out.rows == 0 && sums.cols == out.cols, "shapes of reduce_groups");
  const int64_t group = sums.rows / out.rows;
  for (int64_t g = 0; g < out.rows; ++g) {
    for (int64_t j = 0; j < out.cols; ++j) {
      double sum = 0, highest = -INFINITY;
      for (int64_t h = g * group; h < (g + 1) * group; ++h) {
        sum += sums.f32_row(h)[j];
        highest = std::max<double>(highest, sums.f32_row(h)[j]);
      }
      const double mean = sum / static_cast<double>(group);
      const double result = reduce == GroupReduce::kMax ? highest : reduce == GroupReduce::kSum ? sum : mean;
      out.f32_row(g)[j] = static_cast<float>(result);
    }
  }
}

void ReferenceBackend::weigh_groups(const TensorView& squares, const TensorView& weights, float scale,
                                    const TensorView& out) {
  PKV_CHECK(out.rows > 0 && squares.rows % out.rows == 0 && squares.rows == weights.rows, "shapes of weigh_groups");
  const int64_t group = squares.rows / out.rows;
  for (int64_t g = 0; g < out.rows; ++g) {
    for (int64_t j = 0; j < out.cols; ++j) {
      double sum = 0;
      for (int64_t h = g * group; h < (g + 1) * group; ++h) {
        const double weight = weights.f32_row(h)[j];
        sum += squares.f32_row(h)[j] * weight * weight;
      }
      out.f32_row(g)[j] = static_cast<float>(std::sqrt(scale * sum));
    }
  }
}

void ReferenceBackend::merge_scores(const TensorView& other, bool by_mean, const TensorView& scores) {
  PKV_CHECK(other.rows == scores.rows && other.cols == scores.cols, "scores of the same entries");
  const auto factor = [by_mean](const float* row, int64_t columns) {
    if (!by_mean) return 1.0;
    const double mean = std::accumulate(row, row + columns, 0.0) / static_cast<double>(columns);
    return mean > 0 ? 1 / mean : 0.0;
  };
  for (int64_t g = 0; g < scores.rows; ++g) {
    float* row = scores.f32_row(g);
    const float* beside = other.f32_row(g);
    const double own = factor(row, scores.cols), others = factor(beside, scores.cols);
    for (int64_t j = 0; j < scores.cols; ++j) row[j] = static_cast<float>(std::max(row[j] * own, beside[j] * others));
  }
}

void ReferenceBackend::pool_scores(const TensorView& scores, PoolKind kind, int32_t kernel, const TensorView& out) {
  PKV_CHECK(kernel > 0 && kernel % 2 == 1, "a pooling kernel is odd");
  const int64_t reach = kind == PoolKind::kNone ? 0 : kernel / 2;
  for (int64_t r = 0; r < scores.rows; ++r) {
    const float* from = scores.f32_row(r);
    for (int64_t j = 0; j < scores.cols; ++j) {
      const int64_t first = std::max<int64_t>(0, j - reach), last = std::min(scores.cols - 1, j + reach);
      float highest = -INFINITY;
      double sum = 0;
      for (int64_t i = first; i <= last; ++i) {
        highest = std::max(highest, from[i]);
        sum += from[i];
      }
      out.f32_row(r)[j] = kind == PoolKind::kAvg ? static_cast<float>(sum / kernel) : highest;
    }
  }
}

void ReferenceBackend::score_entries(const EntryScoring& scoring, const TensorView& scores) {
  const auto columns = static_cast<int32_t>(scores.cols);
  for (int32_t g = 0; g < static_cast<int32_t>(scores.rows); ++g) {
    float* row = scores.f32_row(g);
    for (int32_t j = 0; j < columns; ++j) row[j] = score_entry(scoring, g, j, columns, row[j]);
  }
}

namespace {

// The first `columns` columns of a row by rank: score descending, then smaller column first.
std::vector<int32_t> ranked_columns(const float* scores, int64_t columns) {
  std::vector<int32_t> order(static_cast<size_t>(columns));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [scores](int32_t a, int32_t b) { return scores[a] > scores[b]; });
  return order;
}

}  // namespace

void ReferenceBackend::select_top(const TensorView& scores, int32_t window, const TensorView& counts,
                                  const TensorView& kept) {
  PKV_CHECK(counts.cols == scores.rows && kept.rows == scores.rows, "a count for each lane");
  for (int64_t g = 0; g < scores.rows; ++g) {
    const int32_t count = counts.i32()[g];
    PKV_CHECK(count >= window && count <= scores.cols && count <= kept.cols, "entries between the window and all");
    const int64_t past = scores.cols - window;
    std::vector<int32_t> columns = ranked_columns(scores.f32_row(g), past);
    columns.resize(static_cast<size_t>(count - window));
    for (int64_t j = past; j < scores.cols; ++j) columns.push_back(static_cast<int32_t>(j));
    std::sort(columns.begin(), columns.end());
    std::copy(columns.begin(), columns.end(), kept.i32_row(g));
  }
}

void ReferenceBackend::share_layer(const TensorView& scores, const LayerShare& share, const TensorView& counts) {
  PKV_CHECK(counts.cols == scores.rows, "a count for each lane");
  PKV_CHECK(share.smallest_lane >= share.window && share.largest_lane >= share.smallest_lane &&
                share.total >= scores.rows * share.smallest_lane,
            "a total that every lane has its part of");
  const int64_t past = scores.cols - share.window;
  struct Column {
    float score = 0;
    int64_t lane = 0;
  };
  std::vector<Column> all;  // lane after lane, columns ascending: a stable sort breaks ties as it has to
  for (int64_t g = 0; g < scores.rows; ++g) {
    counts.i32()[g] = share.window;
    std::vector<float> ranks(scores.f32_row(g), scores.f32_row(g) + past);
    const std::vector<int32_t> order = ranked_columns(ranks.data(), past);
    const auto always = std::min<int64_t>(share.smallest_lane - share.window, past);
    for (int64_t rank = 0; rank < always; ++rank) {
      ranks[static_cast<size_t>(order[static_cast<size_t>(rank)])] = INFINITY;
    }
    for (const float rank : ranks) all.push_back({rank, g});
  }
  std::stable_sort(all.begin(), all.end(), [](const Column& a, const Column& b) { return a.score > b.score; });
  int64_t left = share.total - scores.rows * share.window;
  for (const Column& column : all) {
    int32_t& count = counts.i32()[column.lane];
    if (left == 0 || count == share.largest_lane) continue;
    ++count;
    --left;
  }
}

void ReferenceBackend::count_for_recall(const TensorView& scores, const TensorView& mass, const RecallShare& share,
                                        const TensorView& counts, const TensorView& recalls) {
  PKV_CHECK(counts.cols == scores.rows && recalls.cols == scores.rows, "a count and a recall for each lane");
  std::vector<float> ranks(static_cast<size_t>(scores.cols));
  for (int64_t g = 0; g < scores.rows; ++g) {
    std::copy_n(scores.f32_row(g), scores.cols, ranks.begin());
    std::fill(ranks.end() - share.window, ranks.end(), INFINITY);
    const std::vector<int32_t> order = ranked_columns(ranks.data(), scores.cols);
    const auto mass_at = [&](size_t rank) { return static_cast<double>(mass.f32_row(g)[order[rank]]); };
    double total = 0, carried = 0;
    for (size_t rank = 0; rank < order.size(); ++rank) total += mass_at(rank);
    size_t count = 0;
    while (count < order.size() && count < static_cast<size_t>(share.largest_lane) &&
           (ranks[static_cast<size_t>(order[count])] == INFINITY || carried / total < share.recall)) {
      carried += mass_at(count++);
    }
    counts.i32()[g] = static_cast<int32_t>(count);
    recalls.f64()[g] = carried / total;
  }
}

void ReferenceBackend::recall(const TensorView& mass, const TensorView& kept, const TensorView& counts,
                              const TensorView& recalls) {
  PKV_CHECK(counts.cols == mass.rows && recalls.cols == mass.rows, "a count and a recall for each lane");
  for (int64_t g = 0; g < mass.rows; ++g) {
    double total = 0, carried = 0;
    for (int64_t j = 0; j < mass.cols; ++j) total += static_cast<double>(mass.f32_row(g)[j]);
    for (int32_t i = 0; i < counts.i32()[g]; ++i) {
      carried += static_cast<double>(mass.f32_row(g)[kept.i32_row(g)[i]]);
    }
    recalls.f64()[g] = carried / total;
  }
}

}  // namespace pkv
