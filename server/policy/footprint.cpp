// Replays, in pages, what layer-major prefill and decode do to the cache.
#include "server/policy/footprint.h"

#include <algorithm>

#include "kernels/check.h"

namespace pkv {

Footprint cache_footprint(const FootprintInput& input) {
  const CacheGeometry& geometry = input.geometry;
  const auto heads = static_cast<size_t>(geometry.kv_heads);
  PKV_CHECK(input.lane_budgets.size() == static_cast<size_t>(geometry.layers) * heads, "one budget per lane");
  const PageLayout layout = geometry.layout(input.dtype);
  const auto pages = [&](int32_t entries) { return static_cast<uint64_t>(layout.pages_for(entries)); };

  const uint64_t full_layer_pages = heads * pages(input.prompt_tokens);
  const int32_t growth = std::max(0, input.max_tokens - 1);  // the last generated token is never written
  Footprint footprint;
  uint64_t kept_pages = 0;  // of the layers already cut
  for (size_t lane = 0; lane < input.lane_budgets.size(); ++lane) {
    if (lane % heads == 0) footprint.peak_pages = std::max(footprint.peak_pages, kept_pages + full_layer_pages);
    kept_pages += pages(input.lane_budgets[lane]);
    footprint.steady_pages += pages(input.lane_budgets[lane] + growth);
  }
  footprint.peak_pages = std::max(footprint.peak_pages, footprint.steady_pages);
  footprint.steady_bytes = geometry.bytes_of_pages(footprint.steady_pages, input.dtype);
  footprint.peak_bytes = geometry.bytes_of_pages(footprint.peak_pages, input.dtype);
  return footprint;
}

}  // namespace pkv
