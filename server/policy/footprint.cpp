// Replays, in pages, what layer-major prefill and decode do to the cache.
#include <algorithm>

#include "kernels/check.h"
#include "server/policy/cache_plan.h"

namespace pkv {

Footprint cache_footprint(const CacheGeometry& geometry, KvDtype dtype, int32_t prompt_tokens, const CachePlan& own,
                          std::span<const CachePlan* const> others) {
  const auto heads = static_cast<size_t>(geometry.kv_heads), layers = static_cast<size_t>(geometry.layers);
  const PageLayout layout = geometry.layout(dtype);
  // Of one layer of a plan. Where its lanes share, most pages are begun by lanes of one entry more than fills the last.
  const auto pages = [&](std::span<const int32_t> lanes, std::span<const int64_t> shared, size_t layer) {
    uint64_t sum = 0;
    for (const int32_t entries : lanes.subspan(layer * heads, heads)) {
      sum += static_cast<uint64_t>(layout.pages_for(entries));
    }
    if (shared.empty() || shared[layer] == 0) return sum;
    const uint64_t beside_first = static_cast<uint64_t>(shared[layer]) - heads;
    return std::min(sum, heads + beside_first / static_cast<uint64_t>(layout.slots()));
  };
  const auto kept_of = [&](const CachePlan& plan, size_t layer) {
    return pages(plan.lane_budgets, plan.shared_budgets, layer);
  };
  Footprint footprint;
  uint64_t state_bytes = 0;
  const auto add = [&](const CachePlan& plan) {
    PKV_CHECK(plan.lane_budgets.size() == layers * heads && plan.lane_limits.size() == layers * heads,
              "one figure per lane");
    for (size_t layer = 0; layer < layers; ++layer) {
      footprint.steady_pages += pages(plan.lane_limits, plan.shared_limits, layer);
    }
    state_bytes += plan.state_bytes;
  };
  add(own);
  for (const CachePlan* other : others) add(*other);

  // A layer is full until it is cut; by then the others have their part of it.
  const uint64_t full_layer_pages = heads * static_cast<uint64_t>(layout.pages_for(prompt_tokens));
  uint64_t kept_pages = 0;
  for (size_t layer = 0; layer < layers; ++layer) {
    for (const CachePlan* other : others) kept_pages += kept_of(*other, layer);
    footprint.peak_pages = std::max(footprint.peak_pages, kept_pages + full_layer_pages);
    kept_pages += kept_of(own, layer);
  }
  footprint.peak_pages = std::max(footprint.peak_pages, footprint.steady_pages);
  footprint.steady_bytes = geometry.bytes_of_pages(footprint.steady_pages, dtype) + state_bytes;
  footprint.peak_bytes = geometry.bytes_of_pages(footprint.peak_pages, dtype) + state_bytes;
  return footprint;
}

}  // namespace pkv
