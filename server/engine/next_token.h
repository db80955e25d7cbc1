// The next token of an answer: what it needs of the output head, and how it is chosen of what comes.
#pragma once

#include <optional>
#include <random>
#include <span>

#include "absl/status/status.h"
#include "server/engine/logit_edits.h"
#include "server/engine/output_head.h"
#include "server/engine/request_result.h"

namespace pkv {

// What is wanted of the logits that follow `answer`. All of it must live until they are there.
OutputHead::Row next_token_row(const Request& request, std::span<const TokenId> answer, LogitEdits& edits,
                               std::mt19937_64& rng);
// The token that follows `answer`, with log-probabilities where the request wants them; nothing where the model made no
// number of it (not_a_number()).
std::optional<TokenLogprob> next_token(const Request& request, std::span<const TokenId> answer,
                                       const OutputHead::Result& output);
// What a request ends with whose logits are NaN: DATA_LOSS. Others may be well: a weight that is one concerns those who
// use it.
absl::Status not_a_number();
// A token of this logit, and the best ones beside it.
TokenLogprob with_logprobs(TokenId token, float logit, const OutputHead::Result& output);

}  // namespace pkv
