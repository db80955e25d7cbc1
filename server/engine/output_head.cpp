// Tiles of logits and what the backend makes of them.
#include "server/engine/output_head.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "kernels/check.h"
#include "kernels/status_macros.h"
#include "kernels/tensor_set.h"
#include "server/cache/step_buffer.h"

namespace pkv {
namespace {

constexpr size_t kDescribedBytes = sizeof(SampleRow) + sizeof(LogprobRow);  // of a row

}  // namespace

void OutputHead::describe(const Row& row, int32_t vocabulary, SampleRow& sample, LogprobRow& logprob) {
  sample = {};
  if (row.sampling != nullptr) {
    const SampleNeed need = sample_need(*row.sampling, vocabulary);
    sample.ranked = need.ranked;
    sample.mass_scale = need.mass_scale;
    if (row.edits != nullptr) row.edits->describe(row.answer, sample);
  }
  logprob = row.logprobs;
  logprob.ranked = std::min(logprob.ranked, vocabulary);
}

// Columns of a row of results; the ranked tokens come last, for most rows have few.
struct OutputHead::Columns {
  static constexpr int64_t kComparison = 0;  // RowComparison
  static constexpr int64_t kMass = 4;
  static constexpr int64_t kLogSumExp = 5;
  static constexpr int64_t kTarget = 6;
  static constexpr int64_t kTop = 8;
  static constexpr int64_t kRanked = kTop + kMaxTopLogprobs * kWords<RankedToken>;
  static constexpr int64_t kAll = kRanked + kMostRanked * kWords<RankedToken>;
  static_assert(kAll % 2 == 0);  // for a double at the start of each row
};

absl::StatusOr<OutputHead> OutputHead::create(const Model& model, int32_t tile_rows, int32_t rows) {
  OutputHead head(model);
  const ModelShape& shape = model.shape();
  const TensorSet<OutputHead> tensors = {{&OutputHead::normed_, tile_rows, shape.width},
                                         {&OutputHead::logits_, tile_rows, shape.vocab_size},
                                         {&OutputHead::baseline_, 1, shape.vocab_size},
                                         {&OutputHead::results_, rows, Columns::kAll, DType::kI32}};
  PKV_RETURN_IF_ERROR(tensors.allocate(model.backend(), head));
  PKV_ASSIGN_OR_RETURN(head.described_, model.backend().allocate_staged(static_cast<size_t>(rows) * kDescribedBytes));
  head.fetched_.resize(static_cast<size_t>(rows * Columns::kAll));
  head.bytes_ =
      tensors.bytes() + staged_bytes(head.described_) + head.fetched_.size() * sizeof(int32_t) + head.chooser_.bytes();
  return head;
}

absl::Status OutputHead::run(const Input& input, Use use) {
  const std::span<const Row> rows = input.rows;
  PKV_CHECK(rows.size() * kDescribedBytes <= described_.bytes(), "rows of an output head");
  const size_t logprobs_at = rows.size() * sizeof(SampleRow);
  auto* samples = reinterpret_cast<SampleRow*>(described_.host());
  auto* logprobs = reinterpret_cast<LogprobRow*>(described_.host() + logprobs_at);
  for (size_t i = 0; i < rows.size(); ++i) describe(rows[i], model_->shape().vocab_size, samples[i], logprobs[i]);
  model_->backend().commit(described_, 0, rows.size() * kDescribedBytes);
  return run(input,
             {.samples = reinterpret_cast<const SampleRow*>(described_.device()),
              .logprobs = reinterpret_cast<const LogprobRow*>(described_.device() + logprobs_at)},
             use);
}

absl::Status OutputHead::run(const Input& input, const DescribedRows& described, Use use) {
  const std::span<const Row> rows = input.rows;
  const auto count = static_cast<int64_t>(rows.size());
  PKV_CHECK(input.x.rows == count && count <= results_.view().rows, "rows of an output head");
  PKV_CHECK(!input.computed || count <= tile_rows(), "what was computed is one tile");
  const Wanted wanted = wanted_of(rows);
  Backend& backend = model_->backend();
  const auto may_need_row = [&](const Row& row) {
    return row.sampling != nullptr && sample_need(*row.sampling, model_->shape().vocab_size).may_need_row;
  };
  int64_t used = 0;
  for (int64_t first = 0; first < count; first += tile_rows()) {
    const int64_t end = std::min<int64_t>(count, first + tile_rows());
    if (!input.computed) {
      const TensorView logits = compute_logits(input.x.slice_rows(first, end - first), input.phase);
      compare_tile(rows.subspan(static_cast<size_t>(first), static_cast<size_t>(end - first)), first);
      rank_tile(logits, first, described, wanted);
    }
    // The next tile takes this one's place.
    if (end < count && std::none_of(rows.begin() + first, rows.begin() + end, may_need_row)) continue;
    fetch(used, end, wanted, used == 0 ? input.reads : std::span<const Fetch>());
    PKV_RETURN_IF_ERROR(backend.status());
    PKV_RETURN_IF_ERROR(choose(rows, used, end, first));
    for (int64_t i = used; i < end; ++i) {
      const auto row = static_cast<size_t>(i);
      PKV_RETURN_IF_ERROR(use(row, output_of(rows[row], i - used)));
    }
    used = end;
  }
  return absl::OkStatus();
}

OutputHead::Wanted OutputHead::wanted_of(std::span<const Row> rows) const {
  Wanted wanted;
  for (const Row& row : rows) {
    if (row.sampling != nullptr) {
      wanted.sampled = true;
      wanted.ranked = std::max(wanted.ranked, sample_need(*row.sampling, model_->shape().vocab_size).ranked);
    }
    wanted.logprobs = wanted.logprobs || row.logprobs.ranked >= 0;
    wanted.compared = wanted.compared || row.comparison != Row::Comparison::kNone;
  }
  return wanted;
}

void OutputHead::compute(const TensorView& x, Phase phase, const DescribedRows& described, const Wanted& wanted) {
  PKV_CHECK(x.rows <= tile_rows() && !wanted.compared, "a tile of rows of which none is compared");
  rank_tile(compute_logits(x, phase), 0, described, wanted);
}

TensorView OutputHead::compute_logits(const TensorView& x, Phase phase) {
  const TensorView logits = logits_.rows(x.rows);
  model_->logits(x, phase, normed_.rows(x.rows), logits);
  return logits;
}

void OutputHead::rank_tile(const TensorView& logits, int64_t first, const DescribedRows& described,
                           const Wanted& wanted) {
  Backend& backend = model_->backend();
  const TensorView results = results_.view().slice_rows(first, logits.rows);
  const auto column = [&](int64_t at) {
    TensorView view = results.slice_cols(at, 1);
    view.dtype = DType::kF32;
    return view;
  };
  if (wanted.logprobs) {
    backend.token_logprobs({.logits = logits,
                            .rows = described.logprobs + first,
                            .log_sum_exp = column(Columns::kLogSumExp),
                            .target = column(Columns::kTarget),
                            .ranked = results.slice_cols(Columns::kTop, Columns::kRanked - Columns::kTop)});
  }
  if (wanted.sampled) {
    backend.sample_rows({.logits = logits,
                         .rows = described.samples + first,
                         .ranked = results.slice_cols(Columns::kRanked, Columns::kAll - Columns::kRanked),
                         .mass = column(Columns::kMass)});
  }
}

void OutputHead::compare_tile(std::span<const Row> rows, int64_t first) {
  Backend& backend = model_->backend();
  const auto is = [&](size_t row, Row::Comparison what) { return rows[row].comparison == what; };
  for (size_t row = 0; row < rows.size();) {
    size_t end = row + 1;
    if (is(row, Row::Comparison::kBaseline)) {
      backend.copy(baseline_.view(), logits_.view().slice_rows(static_cast<int64_t>(row), 1));
    } else if (is(row, Row::Comparison::kCompared)) {
      while (end < rows.size() && is(end, Row::Comparison::kCompared)) ++end;
      const auto at = static_cast<int64_t>(row), count = static_cast<int64_t>(end - row);
      backend.compare_rows(logits_.view().slice_rows(at, count), baseline_.view(),
                           results_.view().slice_rows(first + at, count));
    }
    row = end;
  }
}

void OutputHead::fetch(int64_t first, int64_t end, const Wanted& wanted, std::span<const Fetch> reads) {
  fetched_words_ = Columns::kRanked + wanted.ranked * kWords<RankedToken>;
  reads_.assign(reads.begin(), reads.end());
  reads_.push_back({fetched_.data(), results_.view().slice_rows(first, end - first).slice_cols(0, fetched_words_)});
  model_->backend().fetch(reads_);
}

std::span<const RankedToken> OutputHead::fetched_tokens(int64_t index, int64_t column, int32_t count) const {
  return {reinterpret_cast<const RankedToken*>(fetched_row(index) + column), static_cast<size_t>(count)};
}

absl::Status OutputHead::choose(std::span<const Row> rows, int64_t begin, int64_t end, int64_t tile) {
  const int32_t vocabulary = model_->shape().vocab_size;
  choices_.clear();
  next_choice_ = 0;
  for (int64_t i = begin; i < end; ++i) {
    const Row& row = rows[static_cast<size_t>(i)];
    if (row.rng == nullptr) continue;
    const SampleNeed need = sample_need(*row.sampling, vocabulary);
    PKV_CHECK(i >= tile || !need.may_need_row, "a row whose logits are gone");
    const float mass = std::bit_cast<float>(fetched_row(i - begin)[Columns::kMass]);
    choices_.push_back({.sampling = row.sampling,
                        .edits = row.edits,
                        .rng = row.rng,
                        .ranked = {.best = fetched_tokens(i - begin, Columns::kRanked, need.ranked),
                                   .vocabulary = vocabulary,
                                   .mass = mass},
                        .logits = need.may_need_row ? logits_.view().slice_rows(i - tile, 1) : TensorView{}});
  }
  return chooser_.choose(choices_);
}

OutputHead::Result OutputHead::output_of(const Row& row, int64_t index) {
  const int32_t* words = fetched_row(index);
  Result output;
  if (row.rng != nullptr) output.chosen = choices_[next_choice_++].chosen;
  if (row.logprobs.ranked >= 0) {
    output.log_sum_exp = std::bit_cast<float>(words[Columns::kLogSumExp]);
    output.target = std::bit_cast<float>(words[Columns::kTarget]);
    output.top = fetched_tokens(index, Columns::kTop, std::min(row.logprobs.ranked, model_->shape().vocab_size));
  }
  if (row.comparison == Row::Comparison::kCompared) {
    std::memcpy(static_cast<void*>(&output.comparison), words + Columns::kComparison, sizeof(RowComparison));
  }
  return output;
}

}  // namespace pkv
