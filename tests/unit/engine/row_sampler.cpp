// A model of given logits, and the output head over it.
#include "tests/unit/engine/row_sampler.h"

#include <gtest/gtest.h>

#include <numeric>
#include <utility>

namespace pkv::test {

void GivenLogits::logits(const TensorView& x, Phase, const TensorView&, const TensorView& logits) const {
  std::vector<float> which(static_cast<size_t>(x.rows));
  backend().fetch({which.data(), x});
  for (int64_t r = 0; r < x.rows; ++r) {
    backend().upload(logits.slice_rows(r, 1), rows[static_cast<size_t>(which[static_cast<size_t>(r)])].data());
  }
}

RowSampler::RowSampler(Backend& backend, int32_t vocabulary, int32_t tile_rows, int32_t rows)
    : model_(std::make_unique<GivenLogits>(backend, vocabulary)),
      head_(*OutputHead::create(*model_, tile_rows, rows)),
      x_(*backend.allocate(rows, 1, DType::kF32)) {
  std::vector<float> numbers(static_cast<size_t>(rows));
  std::iota(numbers.begin(), numbers.end(), 0.0f);
  backend.upload(x_.view(), numbers.data());
}

RowSampler::Answer RowSampler::start(std::shared_ptr<const Request> request, uint64_t seed) {
  auto edits = LogitEdits::create(model_->backend(), *request, model_->shape().vocab_size);
  return {.request = std::move(request), .tokens = {}, .edits = *std::move(edits), .rng = std::mt19937_64(seed)};
}

std::vector<TokenLogprob> RowSampler::next(std::span<Answer> answers, std::vector<std::vector<float>> logits) {
  model_->rows = std::move(logits);
  std::vector<OutputHead::Row> rows;
  for (Answer& answer : answers)
    rows.push_back(next_token_row(*answer.request, answer.tokens, answer.edits, answer.rng));
  std::vector<TokenLogprob> tokens;
  const absl::Status status =
      head_.run({.x = input(static_cast<int64_t>(answers.size())), .phase = Phase::kDecode, .rows = rows},
                [&](size_t row, const OutputHead::Result& output) {
                  EXPECT_EQ(row, tokens.size());
                  Answer& answer = answers[row];
                  tokens.push_back(next_token(*answer.request, answer.tokens, output).value());
                  return absl::OkStatus();
                });
  EXPECT_EQ(status, absl::OkStatus());
  for (size_t i = 0; i < answers.size(); ++i) answers[i].tokens.push_back(tokens[i].id);
  return tokens;
}

}  // namespace pkv::test
