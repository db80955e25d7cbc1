// pyramidkv: window scores as snapkv, with more entries for lower layers and fewer for upper ones (PyramidKV,
// arXiv 2406.02069, section 4). All of it in integers, so that the same request gets the same budgets on every machine.
#include <algorithm>

#include "server/policy/budget.h"
#include "server/policy/builtin.h"
#include "server/policy/window_score.h"
#include "server/status/field_error.h"

namespace pkv {
namespace {

// One pyramid: n > B > W >= 1, L >= 1, beta >= 1.
struct Pyramid {
  int64_t tokens = 0;  // n
  int64_t budget = 0;  // B
  int64_t window = 0;  // W
  int64_t layers = 0;  // L
  int64_t beta_millionths = 0;

  int64_t past() const { return budget - window; }  // C
};

// Layer l gets bottom - (bottom - top) l / (L - 1) entries beside the window, where top = C / beta and bottom = 2C -
// top (PyramidKV, eq. 1); a bottom above n - W is cut to it and the top raised by as much, so that the sum is L C.
// Rounded by largest remainder, ties to the lower layer.
//
// As fractions of the common denominator beta_millionths * (L - 1). C and L are below 2^31 and beta_millionths below
// 2^63, so every product is below 2^127.
std::vector<int32_t> exact_allocation(const Pyramid& pyramid) {
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

// The authors' released rule (KVCache-Factory, PyramidKVCluster.update_kv), with its floored step, its uniform budget
// for texts below 2C and so a sum that is not L B.
std::vector<int32_t> factory_allocation(const Pyramid& pyramid) {
  const int64_t past = pyramid.past();
  // One layer has no step; the released code divides by zero there.
  if (pyramid.layers == 1 || pyramid.tokens < 2 * past) {
    return std::vector<int32_t>(static_cast<size_t>(pyramid.layers), static_cast<int32_t>(pyramid.budget));
  }
  auto top = static_cast<int64_t>(floor_div(static_cast<__int128>(past) * kMillion, pyramid.beta_millionths));
  int64_t bottom = 2 * past - top;
  if (bottom >= pyramid.tokens - pyramid.window) {
    bottom = pyramid.tokens - pyramid.window;
    top = 2 * past - bottom;
  }
  const auto step = static_cast<int64_t>(floor_div(bottom - top, pyramid.layers - 1));
  std::vector<int32_t> kept(static_cast<size_t>(pyramid.layers));
  for (size_t layer = 0; layer < kept.size(); ++layer) {
    kept[layer] = static_cast<int32_t>(bottom - static_cast<int64_t>(layer) * step + pyramid.window);
  }
  return kept;
}

class PyramidKvPolicy : public WindowScorePolicy {
 public:
  using WindowScorePolicy::WindowScorePolicy;

  std::vector<int32_t> layer_budgets(int32_t budget, int32_t tokens, int32_t layers) const override {
    const Pyramid pyramid{.tokens = tokens,
                          .budget = budget,
                          .window = params().window_tokens,
                          .layers = layers,
                          .beta_millionths = params().beta_millionths};
    return spends_exactly() ? exact_allocation(pyramid) : factory_allocation(pyramid);
  }
  bool spends_exactly() const override { return params().allocation == PyramidAllocation::kExact; }
};

}  // namespace

absl::Status validate_pyramidkv(const PolicySpec& spec) {
  if (spec.params.beta_millionths < kMillion) {
    return field_error("cache_policy.pyramidkv.beta", "must be at least 1");
  }
  return validate_window_policy("pyramidkv", spec);
}

std::unique_ptr<CachePolicy> make_pyramidkv(const PolicySpec& spec) { return std::make_unique<PyramidKvPolicy>(spec); }

}  // namespace pkv
