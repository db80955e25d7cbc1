// pyramidkv: window scores as snapkv, with more entries for lower layers and fewer for upper ones (PyramidKV,
// arXiv 2406.02069, section 4).
#include "kernels/status_macros.h"
#include "server/policy/budget.h"
#include "server/policy/builtin.h"
#include "server/policy/pyramid.h"
#include "server/policy/window_score.h"

namespace pkv {
namespace {

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
    return spends_exactly() ? exact_pyramid(pyramid) : factory_allocation(pyramid);
  }
  bool spends_exactly() const override { return params().allocation == PyramidAllocation::kExact; }
};

}  // namespace

absl::Status validate_pyramidkv(const PolicySpec& spec) {
  PKV_RETURN_IF_ERROR(validate_beta("pyramidkv", spec.params));
  return validate_window_policy("pyramidkv", spec);
}

std::unique_ptr<CachePolicy> make_pyramidkv(const PolicySpec& spec) { return std::make_unique<PyramidKvPolicy>(spec); }

}  // namespace pkv
