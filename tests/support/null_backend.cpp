// Memory, positions and selection; and scores from a hash.
#include "tests/support/null_backend.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/check.h"
#include "kernels/status_macros.h"

namespace pkv::test {
namespace {

// In (0, 1]: the high bits of Knuth's multiplicative hash (The Art of Computer Programming, section 6.4).
float made_up(int64_t row, int64_t column) {
  const uint32_t hash = static_cast<uint32_t>(column * 31 + row + 1) * 2654435761u;
  return static_cast<float>((hash >> 8) + 1) * 0x1p-24f;
}

void make_up(const TensorView& view) {
  for (int64_t row = 0; row < view.rows; ++row) {
    for (int64_t column = 0; column < view.cols; ++column) view.f32_row(row)[column] = made_up(row, column);
  }
}

int32_t& position_at(const KvView& kv, const Lane& lane, int32_t slot) {
  PKV_CHECK(slot >= 0 && slot < lane.length, "a slot outside the lane");
  const int32_t slots = page_layout(kv, lane).slots();
  return kv.page_positions(lane, slot / slots)[slot % slots];
}

// The first tokens: logits are zeros that nothing edits.
void rank_zeros(int32_t count, RankedToken* best) {
  for (int32_t token = 0; token < count; ++token) best[token] = {.token = token, .logit = 0, .before = 0};
}

class NullWeight final : public Weight {
 public:
  using Weight::Weight;
  size_t bytes() const override { return 0; }
};

}  // namespace

// Zeros that cost nothing until they are written.
absl::StatusOr<Tensor> NullBackend::allocate(int64_t rows, int64_t cols, DType dtype) {
  PKV_CHECK(rows >= 0 && cols >= 0, "negative extent");
  PKV_ASSIGN_OR_RETURN(std::shared_ptr<std::byte> memory,
                       allocate_lazy(static_cast<size_t>(rows * cols) * dtype_bytes(dtype)));
  void* data = memory.get();
  return Tensor(std::move(memory), TensorView{data, dtype, rows, cols, cols});
}

absl::StatusOr<std::unique_ptr<Weight>> NullBackend::prepare_weight(const WeightSource& source) {
  return std::make_unique<NullWeight>(source.rows, source.cols);
}

void NullBackend::write_kv(const TensorView&, const TensorView&, const int32_t* positions, const KvView& kv,
                           const RowSpans& spans, int32_t kv_heads) {
  for (const RowSpan& span : spans) {
    for (int32_t head = 0; head < kv_heads; ++head) {
      const Lane& lane = kv.lanes[span.first_lane + head];
      for (int32_t i = 0; i < span.rows; ++i) {
        position_at(kv, lane, lane.write_slot + i) = positions[span.first_row + i];
      }
    }
  }
}

void NullBackend::weigh_groups(const TensorView&, const TensorView&, float, const TensorView& out) { make_up(out); }

void NullBackend::reduce_groups(const TensorView&, GroupReduce, const TensorView& out) { make_up(out); }

void NullBackend::pool_scores(const TensorView&, PoolKind, int32_t, const TensorView& out) { make_up(out); }

void NullBackend::key_norms(const KvView&, int32_t, const TensorView& norms) { make_up(norms); }

void NullBackend::key_similarity(const KvView&, int32_t, const TensorView& unit_sums, const TensorView& cosines) {
  make_up(unit_sums);
  make_up(cosines);
}

void NullBackend::score_entries(const EntryScoring& scoring, const TensorView& scores) {
  const auto columns = static_cast<int32_t>(scores.cols);
  for (int32_t g = 0; g < static_cast<int32_t>(scores.rows); ++g) {
    float* row = scores.f32_row(g);
    for (int32_t j = 0; j < columns; ++j) row[j] = score_entry(scoring, g, j, columns, row[j]);
  }
}

void NullBackend::select_top(const TensorView& scores, int32_t window, const TensorView& counts,
                             const TensorView& kept) {
  const int64_t past = scores.cols - window;
  for (int64_t row = 0; row < scores.rows; ++row) {
    const int32_t count = counts.i32()[row], ranked = count - window;
    PKV_CHECK(ranked >= 0 && count <= scores.cols && count <= kept.cols, "entries between the window and all");
    const float* score = scores.f32_row(row);
    moved_.resize(static_cast<size_t>(past));
    std::iota(moved_.begin(), moved_.end(), 0);
    const auto better = [score](int32_t a, int32_t b) {
      return score[a] > score[b] || (score[a] == score[b] && a < b);
    };
    std::nth_element(moved_.begin(), moved_.begin() + ranked, moved_.end(), better);
    std::sort(moved_.begin(), moved_.begin() + ranked);
    std::copy_n(moved_.begin(), ranked, kept.i32_row(row));
    std::iota(kept.i32_row(row) + ranked, kept.i32_row(row) + count, static_cast<int32_t>(past));
  }
}

void NullBackend::share_layer(const TensorView& scores, const LayerShare& share, const TensorView& counts) {
  reference_.share_layer(scores, share, counts);
}

void NullBackend::count_for_recall(const TensorView& scores, const TensorView& mass, const RecallShare& share,
                                   const TensorView& counts, const TensorView& recalls) {
  reference_.count_for_recall(scores, mass, share, counts, recalls);
}

void NullBackend::recall(const TensorView& mass, const TensorView& kept, const TensorView& counts,
                         const TensorView& recalls) {
  reference_.recall(mass, kept, counts, recalls);
}

void NullBackend::gather(const KvView& kv, int32_t from, const TensorView& kept, const TensorView& counts, int32_t to) {
  for (int32_t g = 0; g < static_cast<int32_t>(kept.rows); ++g) {
    const int32_t count = counts.i32()[g];
    PKV_CHECK(count >= 0 && count <= kept.cols, "as many slots as there are to gather");
    const Lane& source = kv.lanes[from + g];
    const Lane& target = kv.lanes[to + g];
    moved_.clear();
    for (int32_t i = 0; i < count; ++i) moved_.push_back(position_at(kv, source, kept.i32_row(g)[i]));
    for (int32_t i = 0; i < count; ++i) position_at(kv, target, i) = moved_[static_cast<size_t>(i)];
  }
}

void NullBackend::sample_rows(const SampleArgs& args) {
  for (int64_t row = 0; row < args.logits.rows; ++row) {
    rank_zeros(args.rows[row].ranked, row_as<RankedToken>(args.ranked, row));
    *args.mass.f32_row(row) = static_cast<float>(args.logits.cols);
  }
}

void NullBackend::token_logprobs(const LogprobArgs& args) {
  for (int64_t row = 0; row < args.logits.rows; ++row) {
    if (args.rows[row].ranked < 0) continue;
    *args.log_sum_exp.f32_row(row) = std::log(static_cast<float>(args.logits.cols));
    *args.target.f32_row(row) = 0;
    rank_zeros(args.rows[row].ranked, row_as<RankedToken>(args.ranked, row));
  }
}

void NullBackend::compare_rows(const TensorView& logits, const TensorView&, const TensorView& results) {
  for (int64_t row = 0; row < logits.rows; ++row) *row_as<RowComparison>(results, row) = {.kl = 0, .same_best = 1};
}

void NullModel::run_layer(const StepPlan& plan, int32_t layer, const TensorView&, StepScratch& scratch,
                          const LayerRun& run) const {
  if (!run.keys) return;
  backend().write_kv(scratch.k.rows(plan.rows), scratch.v.rows(plan.rows), plan.positions, plan.view(layer), plan.spans,
                     shape_.kv_heads);
}

}  // namespace pkv::test
