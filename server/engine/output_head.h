// The model's output head, and what is wanted of its rows of logits: tokens to choose from, log-probabilities, a
// comparison. The logits stay where they are computed, a tile of rows at a time; what comes of all tiles is fetched
// together. A whole row is fetched only for a token that its best do not decide.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "kernels/sampling.h"
#include "server/cache/step_plan.h"
#include "server/engine/logit_edits.h"
#include "server/engine/row_chooser.h"
#include "server/engine/sampler.h"
#include "server/model/model.h"

namespace pkv {

class OutputHead {
 public:
  // What is wanted of a row. What is referred to lives until the row was used.
  struct Row {
    enum class Comparison : uint8_t { kNone, kBaseline, kCompared };  // compared rows follow their baseline

    const SamplingParams* sampling = nullptr;  // of the next token; nullptr: none is wanted
    LogitEdits* edits = nullptr;               // with `sampling`
    std::mt19937_64* rng = nullptr;            // of the choice, shared with greedy rows only; nullptr: none is made
    std::span<const TokenId> answer;           // so far
    LogprobRow logprobs;                       // log-probabilities
    Comparison comparison = Comparison::kNone;
  };

  // What came of a row, as far as it was wanted. Spans are valid until the next row is used.
  struct Result {
    ChosenToken chosen;                // where the row has a generator
    float log_sum_exp = 0;             // without edits, as everything below
    float target = 0;                  // the target's logit
    std::span<const RankedToken> top;  // the best
    RowComparison comparison;
  };

  // Tiles of at most `tile_rows` rows, and results of at most `rows` in one run. `model` must outlive this.
  // RESOURCE_EXHAUSTED where the memory cannot be had.
  static absl::StatusOr<OutputHead> create(const Model& model, int32_t tile_rows, int32_t rows);

  int32_t tile_rows() const { return static_cast<int32_t>(logits_.view().rows); }
  uint64_t bytes() const { return bytes_; }

  // Writes a row down for the backend: once for each row, for its edits tell what changed only once.
  static void describe(const Row& row, int32_t vocabulary, SampleRow& sample, LogprobRow& logprob);

  // What is wanted of any of some rows.
  struct Wanted {
    int32_t ranked = 0;  // at most
    bool sampled = false, logprobs = false, compared = false;
  };
  Wanted wanted_of(std::span<const Row> rows) const;
  // What run() asks the backend for, of one tile of rows x [R <= tile_rows(), D] of which none is compared. From there
  // on it depends on R and `wanted` alone, so that a step can have it in its recording. Of rows that are nobody's
  // nothing is wanted.
  void compute(const TensorView& x, Phase phase, const DescribedRows& described, const Wanted& wanted);

  // What goes through it.
  struct Input {
    TensorView x;  // [R <= rows, D], one for each of `rows`
    Phase phase = Phase::kDecode;
    std::span<const Row> rows;
    std::span<const Fetch> reads;  // somebody else's, that need no wait of their own: done before the first result
    bool computed = false;         // these rows went through compute() last
  };
  // With what describe() made of each row; `use` is called once per row, in order, until it gives an error, which is
  // the run's. So is the backend's status(); `use` is not called with what a failed one gives.
  using Use = absl::FunctionRef<absl::Status(size_t row, const Result& output)>;
  absl::Status run(const Input& input, const DescribedRows& described, Use use);
  // Describes them first: for rows in no step's plan.
  absl::Status run(const Input& input, Use use);

 private:
  // Where what comes of a row lies, as the operations write it: in a row of a tensor of 4-byte elements.
  struct Columns;

  explicit OutputHead(const Model& model) : model_(&model), chooser_(model.backend(), model.shape().vocab_size) {}
  // The logits of a tile's rows x; what is wanted of them, which are rows [first, first + logits.rows) of the results.
  TensorView compute_logits(const TensorView& x, Phase phase);
  void rank_tile(const TensorView& logits, int64_t first, const DescribedRows& described, const Wanted& wanted);
  void compare_tile(std::span<const Row> rows, int64_t first);
  void fetch(int64_t first, int64_t end, const Wanted& wanted, std::span<const Fetch> reads);
  // Of rows [begin, end), of which the first was fetched first; the last of them are those of the tile that begins at
  // `tile`.
  absl::Status choose(std::span<const Row> rows, int64_t begin, int64_t end, int64_t tile);
  const int32_t* fetched_row(int64_t index) const { return fetched_.data() + index * fetched_words_; }
  std::span<const RankedToken> fetched_tokens(int64_t index, int64_t column, int32_t count) const;
  Result output_of(const Row& row, int64_t index);

  const Model* model_;
  Tensor normed_;     // [tile, D]
  Tensor logits_;     // [tile, V]
  Tensor baseline_;   // [1, V]
  Staged described_;  // SampleRow [R], then LogprobRow [R], of rows in no step's plan
  Tensor results_;    // [rows, words of a row]
  // On the host:
  std::vector<int32_t> fetched_;  // results, row after row of fetched_words_
  int64_t fetched_words_ = 0;
  RowChooser chooser_;
  std::vector<RowChooser::Row> choices_;  // of what was fetched last, in order, of rows with a generator
  size_t next_choice_ = 0;                // of the next row that is used
  std::vector<Fetch> reads_;              // reused
  uint64_t bytes_ = 0;                    // of all of them
};

}  // namespace pkv
