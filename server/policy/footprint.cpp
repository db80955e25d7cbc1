// Replays, in pages, what layer-major prefill and decode do to the cache.
#include <algorithm>
#include <vector>

#include "kernels/check.h"
#include "server/policy/cache_plan.h"

namespace pkv {
namespace {

// Pages of lanes of one or several formats, and their bytes.
struct Held {
  uint64_t pages = 0;
  uint64_t bytes = 0;

  void add(const Held& other) {
    pages += other.pages;
    bytes += other.bytes;
  }
  void raise_to(const Held& other) {
    pages = std::max(pages, other.pages);
    bytes = std::max(bytes, other.bytes);
  }
};

// A plan's lanes in a cache.
class PlannedLanes {
 public:
  PlannedLanes(const CacheGeometry& geometry, const CachePlan& plan)
      : geometry_(geometry), plan_(plan), layout_(geometry.layout(plan.kv_dtype)) {
    const auto lanes = static_cast<size_t>(geometry.layers) * static_cast<size_t>(geometry.kv_heads);
    PKV_CHECK(plan.lane_budgets.size() == lanes && plan.lane_limits.size() == lanes, "one figure per lane");
  }

  // What one layer's lanes hold after the cut, and at most later.
  Held kept(size_t layer) const {
    if (plan_.shares_model()) return model_share(plan_.lane_budgets, plan_.model_budget, layer);
    return held(plan_.lane_budgets, plan_.shared_budgets, layer);
  }
  Held limit(size_t layer) const {
    if (plan_.shares_model()) return model_share(plan_.lane_limits, plan_.model_limit, layer);
    return held(plan_.lane_limits, plan_.shared_limits, layer);
  }

 private:
  // Where all layers share, what those up to this one hold beyond those up to the one before.
  Held model_share(std::span<const int32_t> lanes, int64_t entries, size_t layer) const {
    const uint64_t pages = pages_until(lanes, entries, layer + 1) - pages_until(lanes, entries, layer);
    return {pages, geometry_.bytes_of_pages(pages, plan_.kv_dtype)};
  }
  // The first layers may have all that is not guaranteed to later ones.
  uint64_t pages_until(std::span<const int32_t> lanes, int64_t entries, size_t layers) const {
    const auto heads = static_cast<size_t>(geometry_.kv_heads);
    const int64_t growth = (entries - plan_.model_budget) / static_cast<int64_t>(lanes.size());
    for (const int32_t smallest : std::span(plan_.smallest_lanes).subspan(layers)) {
      entries -= static_cast<int64_t>(heads) * (smallest + growth);
    }
    uint64_t pages = 0;
    for (const int32_t lane : lanes.first(layers * heads)) pages += static_cast<uint64_t>(layout_.pages_for(lane));
    return std::min(pages, most_pages(entries, layers * heads));
  }
  // Most pages are begun by lanes of one entry more than fills the last.
  uint64_t most_pages(int64_t entries, size_t lanes) const {
    return lanes + (static_cast<uint64_t>(entries) - lanes) / static_cast<uint64_t>(layout_.slots());
  }
  Held held(std::span<const int32_t> lanes, std::span<const int64_t> shared, size_t layer) const {
    const auto heads = static_cast<size_t>(geometry_.kv_heads);
    uint64_t pages = 0;
    for (const int32_t entries : lanes.subspan(layer * heads, heads)) {
      pages += static_cast<uint64_t>(layout_.pages_for(entries));
    }
    if (!shared.empty() && shared[layer] > 0) {
      pages = std::min(pages, most_pages(shared[layer], heads));
    }
    return {pages, geometry_.bytes_of_pages(pages, plan_.kv_dtype)};
  }

  const CacheGeometry& geometry_;
  const CachePlan& plan_;
  PageLayout layout_;
};

// A whole layer of a prompt.
Held whole_layer(const CacheGeometry& geometry, KvDtype dtype, int32_t prompt_tokens) {
  const int64_t pages = int64_t{geometry.kv_heads} * geometry.layout(dtype).pages_for(prompt_tokens);
  return {static_cast<uint64_t>(pages), geometry.bytes_of_pages(static_cast<uint64_t>(pages), dtype)};
}

}  // namespace

Footprint cache_footprint(const CacheGeometry& geometry, int32_t prompt_tokens, const CachePlan& own,
                          std::span<const CachePlan* const> others) {
  const PlannedLanes own_lanes(geometry, own);
  std::vector<PlannedLanes> other_lanes;
  uint64_t state_bytes = own.state_bytes;
  for (const CachePlan* other : others) {
    other_lanes.emplace_back(geometry, *other);
    state_bytes += other->state_bytes;
  }
  // A layer is whole until it is cut; by then the others have their part of it.
  const Held whole = whole_layer(geometry, prompt_format(own.kv_dtype), prompt_tokens);
  Held kept, steady, peak;
  for (size_t layer = 0; layer < static_cast<size_t>(geometry.layers); ++layer) {
    for (const PlannedLanes& other : other_lanes) {
      kept.add(other.kept(layer));
      steady.add(other.limit(layer));
    }
    Held with_whole = kept;
    with_whole.add(whole);
    peak.raise_to(with_whole);
    kept.add(own_lanes.kept(layer));
    steady.add(own_lanes.limit(layer));
  }
  peak.raise_to(steady);
  return {.steady_pages = steady.pages,
          .peak_pages = peak.pages,
          .steady_bytes = steady.bytes + state_bytes,
          .peak_bytes = peak.bytes + state_bytes};
}

}  // namespace pkv
