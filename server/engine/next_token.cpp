// What a row of logits is asked, and what is made of the answer.
#include "server/engine/next_token.h"

#include <cmath>

namespace pkv {

OutputHead::Row next_token_row(const Request& request, std::span<const TokenId> answer, LogitEdits& edits,
                               std::mt19937_64& rng) {
  OutputHead::Row row{.sampling = &request.sampling, .edits = &edits, .answer = answer};
  if (answer.size() >= request.continuation.size()) row.rng = &rng;
  if (request.logprobs) row.logprobs.ranked = request.top_logprobs;
  return row;
}

absl::Status not_a_number() {
  return absl::DataLossError(
      "the model's output is not a number (NaN): weights in its file, or the device's memory, are not what they were");
}

std::optional<TokenLogprob> next_token(const Request& request, std::span<const TokenId> answer,
                                       const OutputHead::Result& output) {
  if (answer.size() < request.continuation.size()) return TokenLogprob{.id = request.continuation[answer.size()]};
  const ChosenToken& chosen = output.chosen;
  if (std::isnan(chosen.logit)) return std::nullopt;  // the best there is
  return request.logprobs ? with_logprobs(chosen.id, chosen.logit, output) : TokenLogprob{.id = chosen.id};
}

TokenLogprob with_logprobs(TokenId token, float logit, const OutputHead::Result& output) {
  TokenLogprob result{.id = token, .logprob = logit - output.log_sum_exp};
  for (const RankedToken& best : output.top) result.top.emplace_back(best.token, best.logit - output.log_sum_exp);
  return result;
}

}  // namespace pkv
