// Replays, in pages, what layer-major prefill and decode do to the cache.
#include "server/policy/footprint.h"

#include <algorithm>

#include "kernels/check.h"

namespace pkv {

Footprint cache_footprint(const FootprintInput& input) {
  const CacheGeometry& geometry = input.geometry;
  const auto heads = static_cast<size_t>(geometry.kv_heads), layers = static_cast<size_t>(geometry.layers);
  const PageLayout layout = geometry.layout(input.dtype);
  const auto pages = [&](std::span<const int32_t> lanes) {
    uint64_t sum = 0;
    for (const int32_t entries : lanes) sum += static_cast<uint64_t>(layout.pages_for(entries));
    return sum;
  };
  const auto check = [&](const KeptLanes& kept) {
    PKV_CHECK(kept.budgets.size() == layers * heads && kept.limits.size() == layers * heads, "one figure per lane");
  };

  check(input.own);
  Footprint footprint{.steady_pages = pages(input.own.limits)};
  uint64_t state_bytes = input.own.state_bytes;
  for (const KeptLanes& other : input.others) {
    check(other);
    footprint.steady_pages += pages(other.limits);
    state_bytes += other.state_bytes;
  }
  // A layer is full until it is cut; by then the others have their part of it.
  const uint64_t full_layer_pages = heads * static_cast<uint64_t>(layout.pages_for(input.prompt_tokens));
  uint64_t kept_pages = 0;
  for (size_t layer = 0; layer < layers; ++layer) {
    for (const KeptLanes& other : input.others) kept_pages += pages(other.budgets.subspan(layer * heads, heads));
    footprint.peak_pages = std::max(footprint.peak_pages, kept_pages + full_layer_pages);
    kept_pages += pages(input.own.budgets.subspan(layer * heads, heads));
  }
  footprint.peak_pages = std::max(footprint.peak_pages, footprint.steady_pages);
  footprint.steady_bytes = geometry.bytes_of_pages(footprint.steady_pages, input.dtype) + state_bytes;
  footprint.peak_bytes = geometry.bytes_of_pages(footprint.peak_pages, input.dtype) + state_bytes;
  return footprint;
}

}  // namespace pkv
