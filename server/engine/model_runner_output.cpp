// The model runner's part in output: the next token of an answer, and the log-probabilities of a prompt.
#include <algorithm>
#include <cmath>

#include "kernels/status_macros.h"
#include "server/engine/model_runner.h"
#include "server/engine/next_token.h"

namespace pkv {

absl::StatusOr<LogitEdits> ModelRunner::make_edits(const Sequence& sequence) const {
  return LogitEdits::create(model_.backend(), sequence.request(), model_.shape().vocab_size);
}

void ModelRunner::accept(Sequence& sequence, const OutputHead::Result& output) {
  const std::optional<TokenLogprob> token = next_token(sequence.request(), sequence.generated(), output);
  token ? sequence.accept(*token, options_.clock()) : sequence.fail(not_a_number());
}

absl::StatusOr<int64_t> ModelRunner::scoring_unit(Sequence& sequence, int64_t most) {
  Sequence::Prefill& prefill = *sequence.prefill();
  const Request& request = sequence.request();
  const int32_t first = prefill.row;
  const int64_t row_work = sequence.contract().work.head_row;
  const auto fits = static_cast<int32_t>(std::clamp<int64_t>(most / row_work, 1, head_->tile_rows()));
  const int32_t rows = std::min(fits, sequence.prompt_tokens() - first);
  // Of each row the token that follows it; nothing follows the last one.
  std::vector<OutputHead::Row> wanted(static_cast<size_t>(rows));
  for (int32_t i = 0; i < rows && first + i + 1 < sequence.prompt_tokens(); ++i) {
    wanted[static_cast<size_t>(i)].logprobs = {.ranked = request.top_logprobs,
                                               .target = request.prompt[static_cast<size_t>(first + i + 1)]};
  }
  std::vector<TokenLogprob> tile;
  if (first == 0) tile.push_back({.id = request.prompt[0]});  // nothing precedes it
  PKV_RETURN_IF_ERROR(
      head_->run({.x = prefill.residual.view().slice_rows(first, rows), .phase = Phase::kPrefill, .rows = wanted},
                 [&](size_t row, const OutputHead::Result& output) {
                   const TokenId target = wanted[row].logprobs.target;
                   if (target < 0) return absl::OkStatus();
                   if (std::isnan(output.log_sum_exp)) sequence.fail(not_a_number());
                   tile.push_back(with_logprobs(target, output.target, output));
                   return absl::OkStatus();
                 }));
  rows_run_ += rows;
  if (!tile.empty()) sequence.tell_prompt_logprobs(tile);
  prefill.row += rows;
  if (prefill.row == sequence.prompt_tokens()) ++prefill.layer;
  return rows * row_work;
}

// The first token comes from the whole prompt's own attention; what was kept counts from the second on.
absl::Status ModelRunner::finish_prompt(Sequence& sequence) {
  const Request& request = sequence.request();
  std::vector<Fetch> reads;
  sequence.read_outcomes(reads);
  if (request.sampling.max_tokens > 0) {
    const TensorView last = sequence.prefill()->residual.view().slice_rows(sequence.prompt_tokens() - 1, 1);
    const OutputHead::Row wanted = next_token_row(request, sequence.generated(), sequence.edits(), sequence.rng());
    PKV_RETURN_IF_ERROR(head_->run({.x = last, .phase = Phase::kPrefill, .rows = {&wanted, 1}, .reads = reads},
                                   [&](size_t, const OutputHead::Result& output) {
                                     accept(sequence, output);
                                     return absl::OkStatus();
                                   }));
  } else {
    model_.backend().fetch(reads);
    PKV_RETURN_IF_ERROR(model_.backend().status());
    sequence.end_without_answer();
  }
  if (Comparison* comparison = sequence.comparison(); comparison != nullptr) {
    comparison->start(sequence.generated().front());
    for (Comparison::Rival& rival : comparison->rivals) rival.ended = sequence.answered();
  }
  sequence.end_prefill(model_.backend());
  return absl::OkStatus();
}

}  // namespace pkv
