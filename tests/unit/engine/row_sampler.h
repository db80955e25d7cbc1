// The way from logits to a token as the engine goes it, by itself: output head, edits, sampler, on a model whose logits
// a test sets.
#pragma once

#include <memory>
#include <random>
#include <span>
#include <vector>

#include "kernels/backend.h"
#include "server/engine/next_token.h"
#include "server/model/model.h"

namespace pkv::test {

class GivenLogits final : public Model {
 public:
  GivenLogits(Backend& backend, int32_t vocabulary) : Model(backend), shape_{.width = 1, .vocab_size = vocabulary} {}

  // Of the rows of the next run of the head, one after the other; x says which: x[r] is the row.
  std::vector<std::vector<float>> rows;

  const ModelShape& shape() const override { return shape_; }
  size_t weight_bytes() const override { return 0; }
  RopeSpec rope() const override { return {}; }
  void embed(const int32_t*, const TensorView&) const override {}
  void run_layer(const StepPlan&, int32_t, const TensorView&, StepScratch&, const LayerRun&) const override {}
  void logits(const TensorView& x, Phase, const TensorView&, const TensorView& logits) const override;

 private:
  ModelShape shape_;
};

// Answers, one token at a time, one row each.
class RowSampler {
 public:
  struct Answer {
    std::shared_ptr<const Request> request;
    std::vector<TokenId> tokens;
    LogitEdits edits;
    std::mt19937_64 rng;
  };

  RowSampler(Backend& backend, int32_t vocabulary, int32_t tile_rows, int32_t rows);

  Answer start(std::shared_ptr<const Request> request, uint64_t seed = 1);
  // The next token of each; logits [V] of each. The tokens are added to the answers.
  std::vector<TokenLogprob> next(std::span<Answer> answers, std::vector<std::vector<float>> logits);

  OutputHead& head() { return head_; }
  GivenLogits& model() { return *model_; }
  // x of the first `count` rows.
  TensorView input(int64_t count) const { return x_.rows(count); }

 private:
  std::unique_ptr<GivenLogits> model_;
  OutputHead head_;
  Tensor x_;  // [rows, 1]
};

}  // namespace pkv::test
