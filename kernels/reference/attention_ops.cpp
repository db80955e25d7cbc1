// The reference backend's operations on the cache: writing keys and values, attention, observation of attention mass.
// Lanes are first unpacked from their pages to dense float32 rows; everything after that is the textbook formula.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/check.h"
#include "kernels/reference/reference_backend.h"
#include "kernels/reference/unpacked_lane.h"

namespace pkv {
namespace {

void write_slot(const KvView& kv, const Lane& lane, int32_t slot, const float* key, const float* value,
                int32_t position) {
  PKV_CHECK(slot >= 0 && slot < lane.length, "write outside the lane");
  const PageLayout layout = page_layout(kv, lane);
  const int32_t page_index = slot / layout.slots(), place = slot % layout.slots();
  std::byte* page = kv.page(lane, page_index);
  store_key(layout, page, place, key);
  store_value(layout, page, place, value);
  kv.page_positions(lane, page_index)[place] = position;
}

// Scaled scores of one query against the first scores.size() keys.
void score_row(const float* query, const UnpackedLane& lane, float scale, std::vector<double>& scores) {
  for (size_t j = 0; j < scores.size(); ++j) {
    scores[j] = scale * reference_dot(query, lane.key(static_cast<int64_t>(j)), lane.head_dim);
  }
}

// -infinity of none.
double log_sum_exp(const std::vector<double>& scores) {
  double highest = -INFINITY;
  for (double score : scores) highest = std::max(highest, score);
  if (scores.empty()) return highest;
  double sum = 0;
  for (double score : scores) sum += std::exp(score - highest);
  return highest + std::log(sum);
}

// Leaves of a row's slots those that the pattern has.
void hide_slots(const SparsePattern& pattern, int32_t kv_head, std::vector<double>& scores) {
  const auto slots = static_cast<int32_t>(scores.size());
  const int32_t block = (slots - 1) / kSparseBlock;
  if (pattern.is_dense(block)) return;
  const auto has = [kv_head](const TensorView& rows, int32_t value) {
    const int32_t* row = rows.i32_row(kv_head);
    return std::find(row, row + rows.cols, value) != row + rows.cols;
  };
  for (int32_t j = kSparseBlock; j < slots; ++j) {
    if (has(pattern.bands, block - j / kSparseBlock) || has(pattern.columns, j)) continue;
    scores[static_cast<size_t>(j)] = -INFINITY;
  }
}

// softmax(scores) V for one query; out [d].
void attend_row(const std::vector<double>& scores, double lse, const UnpackedLane& lane, float* out) {
  std::vector<double> sum(static_cast<size_t>(lane.head_dim), 0.0);
  for (size_t j = 0; j < scores.size(); ++j) {
    const double probability = std::exp(scores[j] - lse);
    const float* value = lane.value(static_cast<int64_t>(j));
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += probability * value[i];
  }
  for (size_t i = 0; i < sum.size(); ++i) out[i] = static_cast<float>(sum[i]);
}

}  // namespace

void ReferenceBackend::write_kv(const TensorView& k, const TensorView& v, const int32_t* positions, const KvView& kv,
                                const RowSpans& spans, int32_t kv_heads) {
  for (const RowSpan& span : spans) {
    for (int32_t g = 0; g < kv_heads; ++g) {
      const Lane& lane = kv.lanes[span.first_lane + g];
      for (int32_t i = 0; i < span.rows; ++i) {
        const int64_t row = span.first_row + i;
        const int64_t column = static_cast<int64_t>(g) * kv.head_dim;
        write_slot(kv, lane, lane.write_slot + i, k.f32_row(row) + column, v.f32_row(row) + column, positions[row]);
      }
    }
  }
}

void ReferenceBackend::attend(const AttendArgs& args) {
  const int32_t group = args.q_heads / args.kv_heads;
  std::vector<double> scores;
  for (const RowSpan& span : args.spans) {
    const int32_t first = args.first_row(span);
    if (first == span.rows) continue;
    for (int32_t g = 0; g < args.kv_heads; ++g) {
      const Lane& lane = args.kv.lanes[span.first_lane + g];
      const UnpackedLane dense(args.kv, lane, lane.visible + span.rows - 1);
      for (int32_t i = first; i < span.rows; ++i) {
        const int64_t row = span.first_row + i - args.skipped_rows;
        scores.resize(static_cast<size_t>(lane.visible + i));
        for (int32_t h = g * group; h < (g + 1) * group; ++h) {
          const int64_t column = static_cast<int64_t>(h) * args.kv.head_dim;
          score_row(args.q.f32_row(row) + column, dense, args.scale, scores);
          if (args.sparse.is_set()) hide_slots(args.sparse, g, scores);
          const double lse = log_sum_exp(scores);
          attend_row(scores, lse, dense, args.out.f32_row(row) + column);
          if (args.lse.data != nullptr) args.lse.f32_row(row)[h] = static_cast<float>(lse);
        }
      }
    }
  }
}

namespace {

// Calls visit(row, query head, scores, lse) for every observation row and query head.
template <typename Visit>
void for_each_observation(const ObserveArgs& args, Visit visit) {
  const int32_t group = args.q_heads / args.kv_heads;
  std::vector<double> scores;
  for (int32_t g = 0; g < args.kv_heads; ++g) {
    const Lane& lane = args.kv.lanes[args.first_lane + g];
    const UnpackedLane dense(args.kv, lane, lane.length);
    for (int64_t row = 0; row < args.q.rows; ++row) {
      scores.resize(static_cast<size_t>(args.visible(lane.length, static_cast<int32_t>(row))));
      for (int32_t h = g * group; h < (g + 1) * group; ++h) {
        const float* query = args.q.f32_row(row) + static_cast<int64_t>(h) * args.kv.head_dim;
        score_row(query, dense, args.scale, scores);
        visit(row, h, scores, log_sum_exp(scores));
      }
    }
  }
}

}  // namespace

void ReferenceBackend::row_lse(const ObserveArgs& args, const TensorView& lse) {
  for_each_observation(args, [&](int64_t row, int32_t head, const std::vector<double>&, double value) {
    lse.f32_row(row)[head] = static_cast<float>(value);
  });
}

void ReferenceBackend::column_mass(const ObserveArgs& args, const TensorView& lse, const TensorView& sums,
                                   const TensorView& squares) {
  // Rows come one after another per head, so float64 totals are kept per head and added to the float32 results at the
  // end.
  const auto columns = static_cast<size_t>(sums.cols);
  std::vector<double> mass(static_cast<size_t>(args.q_heads) * columns, 0.0), mass_squares(mass.size(), 0.0);
  for_each_observation(args, [&](int64_t row, int32_t head, const std::vector<double>& scores, double) {
    PKV_CHECK(scores.size() <= columns, "more slots are seen than there are columns");
    const double row_value = lse.f32_row(row)[head];
    for (size_t j = 0; j < scores.size(); ++j) {
      const double probability = std::exp(scores[j] - row_value);
      mass[static_cast<size_t>(head) * columns + j] += probability;
      mass_squares[static_cast<size_t>(head) * columns + j] += probability * probability;
    }
  });
  for (int32_t h = 0; h < args.q_heads; ++h) {
    for (size_t j = 0; j < columns; ++j) {
      const size_t at = static_cast<size_t>(h) * columns + j;
      sums.f32_row(h)[j] = static_cast<float>(sums.f32_row(h)[j] + mass[at]);
      if (squares.data != nullptr) squares.f32_row(h)[j] = static_cast<float>(squares.f32_row(h)[j] + mass_squares[at]);
    }
  }
}

void ReferenceBackend::diagonal_mass(const ObserveArgs& args, const TensorView& lse, const TensorView& sums) {
  const auto columns = static_cast<size_t>(sums.cols);
  std::vector<double> mass(static_cast<size_t>(args.q_heads) * columns, 0.0);
  for_each_observation(args, [&](int64_t row, int32_t head, const std::vector<double>& scores, double) {
    PKV_CHECK(scores.size() <= columns, "more slots are seen than there are columns");
    double* diagonals = mass.data() + static_cast<size_t>(head + 1) * columns - scores.size();
    for (size_t j = 0; j < scores.size(); ++j) diagonals[j] += std::exp(scores[j] - lse.f32_row(row)[head]);
  });
  for (int32_t h = 0; h < args.q_heads; ++h) {
    for (size_t j = 0; j < columns; ++j) {
      sums.f32_row(h)[j] = static_cast<float>(sums.f32_row(h)[j] + mass[static_cast<size_t>(h) * columns + j]);
    }
  }
}

}  // namespace pkv
