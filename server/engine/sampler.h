// Chooses the next token of what the backend ranked of its logits. Pure: logits, parameters and a random generator in,
// a token out; what the backend does first are the edits (server/engine/logit_edits.h).
//
// Order of the filters, as in the field: bias, penalties, temperature, top_k, top_p, min_p. Temperature 0 is the exact
// argmax after bias and penalties; the lowest id wins ties. A token follows from the whole row of logits. Mostly its
// best say enough: then the whole is not looked at, and what is chosen is the same.
#pragma once

#include <cstdint>
#include <optional>
#include <random>
#include <span>

#include "kernels/sampling.h"
#include "server/engine/request.h"
#include "server/engine/row_ranks.h"

namespace pkv {

// What is needed of a row.
struct SampleNeed {
  int32_t ranked = 0;    // of the best tokens; 0: the whole row decides
  float mass_scale = 0;  // as SampleRow::mass_scale
  bool may_need_row = false;
};
SampleNeed sample_need(const SamplingParams& params, int32_t vocabulary);

// What is known of a row, with its edits.
struct RankedRow {
  std::span<const RankedToken> best;  // in order
  int32_t vocabulary = 0;
  float mass = 0;  // where it was needed
};

// The token where the best decide it. Otherwise nothing, and no random number was used.
std::optional<TokenId> choose_of_best(const RankedRow& row, const SamplingParams& params, std::mt19937_64& rng);
// The token by the whole row: logits [V], with their edits.
TokenId choose_of_row(std::span<const float> logits, const SamplingParams& params, std::mt19937_64& rng,
                      RowScratch& scratch);

}  // namespace pkv
