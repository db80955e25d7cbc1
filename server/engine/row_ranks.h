// All tokens of a row of logits by rank, for answers that the best few do not decide.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "server/engine/request.h"

namespace pkv {

// What looking at a whole row needs, and keeps for the next one.
struct RowScratch {
  std::vector<uint64_t> ranked, other;
  std::vector<double> masses;

  static uint64_t bytes(int32_t vocabulary) {
    return static_cast<uint64_t>(vocabulary) * (2 * sizeof(uint64_t) + sizeof(double));
  }
};

// The token of a ranked place.
inline TokenId token_of(uint64_t ranked) { return static_cast<TokenId>(ranked & 0xffffffffu); }

// Every token whose logit is above -infinity, the best logit first and of equals the smaller id: token_of() them. In
// time linear in the row's length. Valid until the scratch is used again; NaN counts as -infinity.
std::span<const uint64_t> rank_row(std::span<const float> logits, RowScratch& scratch);

}  // namespace pkv
