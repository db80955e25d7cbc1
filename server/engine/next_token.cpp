// Choosing by the best, or by the whole row where they do not say enough.
#include "server/engine/next_token.h"

#include <algorithm>
#include <cmath>

#include "kernels/status_macros.h"

namespace pkv {

OutputHead::Row next_token_row(const Request& request, std::span<const TokenId> answer, LogitEdits& edits) {
  OutputHead::Row row{.sampling = &request.sampling, .edits = &edits, .answer = answer};
  if (request.logprobs) row.logprobs.ranked = request.top_logprobs;
  return row;
}

absl::Status not_a_number() {
  return absl::DataLossError(
      "the model's output is not a number (NaN): weights in its file, or the device's memory, are not what they were");
}

absl::StatusOr<std::optional<TokenLogprob>> choose_token(const Request& request, std::span<const TokenId> answer,
                                                         LogitEdits& edits, const OutputHead::Result& output,
                                                         std::mt19937_64& rng) {
  if (answer.size() < request.continuation.size()) return TokenLogprob{.id = request.continuation[answer.size()]};
  float logit = 0;  // without edits
  std::optional<TokenId> token = choose_of_best(output.ranked, request.sampling, rng);
  if (token) {
    const std::span<const RankedToken> best = output.ranked.best;
    logit = std::find_if(best.begin(), best.end(), [&](const RankedToken& one) { return one.token == *token; })->before;
  } else {
    PKV_ASSIGN_OR_RETURN(const std::span<float> row, output.whole_row());
    edits.apply(row);
    token = choose_of_row(row, request.sampling, rng, *output.scratch);
    edits.restore(row);
    logit = row[static_cast<size_t>(*token)];
  }
  if (std::isnan(logit)) return std::nullopt;  // the best there is
  return request.logprobs ? with_logprobs(*token, logit, output) : TokenLogprob{.id = *token};
}

TokenLogprob with_logprobs(TokenId token, float logit, const OutputHead::Result& output) {
  TokenLogprob result{.id = token, .logprob = logit - output.log_sum_exp};
  for (const RankedToken& best : output.top) result.top.emplace_back(best.token, best.logit - output.log_sum_exp);
  return result;
}

}  // namespace pkv
