// Chooses the next token. Pure: logits, parameters, history and a random generator in, a token out.
#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "server/engine/request_result.h"

namespace pkv {

struct SamplerInput {
  std::span<float> logits;  // [V] of the model; changed in place by bias and penalties
  float log_sum_exp = 0;    // of the untouched logits
  std::span<const TokenId> prompt;
  std::span<const TokenId> generated;
  std::span<const TokenId> forbidden;  // end tokens while fewer than min_tokens are there
  bool logprobs = false;
  int32_t top_logprobs = 0;
};

// Order of the filters, as in the field: bias, penalties, temperature, top_k, top_p, min_p. Temperature 0 is the exact
// argmax after bias and penalties; the lowest id wins ties.
TokenLogprob sample(const SamplerInput& input, const SamplingParams& params, std::mt19937_64& rng);

// The best token; the lowest id wins ties. logits [V].
TokenId argmax(std::span<const float> logits);

// log p of `token` and the `top` best, from untouched logits. logits [V].
TokenLogprob token_logprob(std::span<const float> logits, float log_sum_exp, TokenId token, int32_t top);

}  // namespace pkv
