// Sampling as it is defined: a whole row of logits, one thread, nothing left out. What the server does must come to the
// same.
#pragma once

#include <random>
#include <span>

#include "server/engine/request_result.h"

namespace pkv::test {

struct PlainInput {
  std::span<float> logits;  // [V] of the model; changed in place by bias and penalties
  std::span<const TokenId> prompt, generated;
  std::span<const TokenId> forbidden;  // end tokens while fewer than min_tokens are there
};

TokenId plain_sample(const PlainInput& input, const SamplingParams& params, std::mt19937_64& rng);

// log p of `token` and the `top` best, from untouched logits. logits [V].
TokenLogprob plain_logprob(std::span<const float> logits, float log_sum_exp, TokenId token, int32_t top);

}  // namespace pkv::test
