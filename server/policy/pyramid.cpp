// The line as fractions of the common denominator beta_millionths * (L - 1). C and L are below 2^31 and beta_millionths
// below 2^63, so every product is below 2^127.
#include "server/policy/pyramid.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/policy/budget.h"
#include "server/status/field_error.h"

namespace pkv {

std::vector<int32_t> exact_pyramid(const Pyramid& pyramid) {
  if (pyramid.layers == 1) return {static_cast<int32_t>(pyramid.budget)};
  const __int128 beta = pyramid.beta_millionths;
  const __int128 past = pyramid.past(), steps = pyramid.layers - 1;
  const __int128 most = (pyramid.tokens - pyramid.window) * beta;
  const __int128 bottom = std::min(2 * past * beta - past * kMillion, most);  // in units of 1 / beta_millionths
  const __int128 top = 2 * past * beta - bottom;

  std::vector<__int128> numerators;
  for (int64_t layer = 0; layer < pyramid.layers; ++layer) {
    numerators.push_back(bottom * steps - (bottom - top) * static_cast<__int128>(layer));
  }
  std::vector<int32_t> kept;
  for (const int64_t entries : round_to_sum(numerators, beta * steps, pyramid.past() * pyramid.layers)) {
    kept.push_back(static_cast<int32_t>(entries + pyramid.window));
  }
  return kept;
}

absl::Status validate_beta(std::string_view policy, const PolicyParams& params) {
  if (params.beta_millionths >= kMillion) return absl::OkStatus();
  return field_error(absl::StrCat("cache_policy.", std::string(policy), ".beta"), "must be at least 1");
}

}  // namespace pkv
