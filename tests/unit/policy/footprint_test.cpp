// The footprint against what a cache really allocates when the prefill and the growth of a request are replayed.
#include <algorithm>
#include <limits>
#include <random>

#include "gmock/gmock.h"
#include "server/cache/kv_cache.h"
#include "server/policy/cache_plan.h"
#include "tests/support/tested_backend.h"

namespace pkv {
namespace {

// Allocated and auxiliary bytes at the highest instant and at the end.
struct Measured {
  uint64_t peak_bytes = 0;
  uint64_t final_bytes = 0;
  int32_t final_pages = 0;
};

// Layer by layer: the prompt in chunks, then the cut; afterwards `growth` generated tokens.
Measured replay(KvCache& cache, int32_t prompt_tokens, const CachePlan& plan, int32_t growth) {
  const CacheGeometry& geometry = cache.geometry();
  const SequenceId id =
      *cache.open({.dtype = plan.kv_dtype, .lane_entries = plan.lane_limits, .layer_entries = prompt_tokens});
  cache.add_auxiliary(id, plan.state_bytes);
  for (int32_t layer = 0; layer < geometry.layers; ++layer) {
    for (int32_t first = 0; first < prompt_tokens; first += 13) {
      EXPECT_TRUE(cache.append_slots(id, layer, std::min(13, prompt_tokens - first)).ok());
    }
    const auto heads = static_cast<size_t>(geometry.kv_heads);
    cache.cut(id, layer, std::span(plan.lane_budgets).subspan(static_cast<size_t>(layer) * heads, heads));
  }
  for (int32_t token = 0; token < growth; ++token) {
    EXPECT_EQ(*cache.place_token(id), 0);
  }
  const CacheBytes bytes = cache.bytes(id);
  const Measured measured{bytes.peak, bytes.allocated + bytes.auxiliary, cache.pool().live()};
  cache.close(id);
  return measured;
}

TEST(Footprint, IsWhatACacheReallyAllocates) {
  const auto backend = test::make_tested_backend();
  std::mt19937 random(5);
  const auto between = [&](int32_t low, int32_t high) {
    return low + static_cast<int32_t>(random() % static_cast<uint32_t>(high - low + 1));
  };
  for (int round = 0; round < 300; ++round) {
    const CacheGeometry geometry{.layers = between(1, 12),
                                 .kv_heads = between(1, 4),
                                 .head_dim = 4 * between(1, 5),
                                 .page_bytes = 64 * between(3, 8)};
    const KvDtype dtype = kEntryFormats.rows[between(0, 3)].id;
    const int32_t prompt = between(1, 200), growth = between(0, 40);
    CachePlan plan{.kv_dtype = dtype};
    for (int32_t lane = 0; lane < geometry.layers * geometry.kv_heads; ++lane) {
      plan.lane_budgets.push_back(between(1, prompt));
      plan.lane_limits.push_back(plan.lane_budgets.back() + growth);
    }
    plan.state_bytes = static_cast<uint64_t>(between(0, 1000));
    const Footprint footprint = cache_footprint(geometry, prompt, plan);
    auto cache = KvCache::create(*backend, geometry, uint64_t{1} << 22);
    ASSERT_TRUE(cache.ok());
    const Measured measured = replay(**cache, prompt, plan, growth);
    ASSERT_EQ(footprint.peak_bytes, measured.peak_bytes) << round;
    ASSERT_EQ(footprint.steady_bytes, measured.final_bytes) << round;
    ASSERT_EQ(footprint.steady_pages, static_cast<uint64_t>(measured.final_pages));
    ASSERT_GE(footprint.peak_pages, footprint.steady_pages);
    if (prompt_format(dtype) != dtype) continue;
    ASSERT_EQ(footprint.peak_bytes, geometry.bytes_of_pages(footprint.peak_pages, dtype) + plan.state_bytes);
  }
}

TEST(Footprint, OthersTakeTheirPartOfALayerWhileItIsWhole) {
  const CacheGeometry geometry{.layers = 2, .kv_heads = 1, .head_dim = 64};  // pages of 16 slots
  const CachePlan own{.lane_budgets = {32, 16}, .lane_limits = {32, 16}};
  const CachePlan other{.lane_budgets = {16, 48}, .lane_limits = {16, 48}};
  const CachePlan* const others[] = {&other, &other};
  const Footprint footprint = cache_footprint(geometry, 160, own, others);
  EXPECT_EQ(footprint.steady_pages, 3u + 2 * 4);
  // The second layer whole, the first cut, and both parts of the others.
  EXPECT_EQ(footprint.peak_pages, 10u + 2 + 2 * (1 + 3));
}

TEST(Footprint, OfALayerReadInOneFormatAndKeptInAnother) {
  const CacheGeometry geometry{.layers = 2, .kv_heads = 1, .head_dim = 64};  // pages of 16 slots, or of 40
  const CachePlan own{.kv_dtype = KvDtype::kK8V4, .lane_budgets = {80, 40}, .lane_limits = {90, 50}};
  const CachePlan other{.lane_budgets = {16, 48}, .lane_limits = {16, 48}};
  const CachePlan* const others[] = {&other};
  const auto bytes = [&](uint64_t halves, uint64_t codes) {
    return geometry.bytes_of_pages(halves, KvDtype::kF16) + geometry.bytes_of_pages(codes, KvDtype::kK8V4);
  };
  const Footprint alone = cache_footprint(geometry, 160, own), compared = cache_footprint(geometry, 160, own, others);
  EXPECT_EQ(alone.steady_pages, 3u + 2);
  EXPECT_EQ(alone.steady_bytes, bytes(0, 5));
  EXPECT_EQ(alone.peak_pages, 2u + 10);  // the second layer whole
  EXPECT_EQ(alone.peak_bytes, bytes(10, 2));
  EXPECT_EQ(compared.steady_bytes, bytes(1 + 3, 5));
  EXPECT_EQ(compared.peak_bytes, bytes(10 + 1 + 3, 2));
}

// Most pages of lanes that share `entries`, each at least one and at most `largest`: every division is tried.
int32_t most_pages(const PageLayout& layout, int32_t lanes, int32_t entries, int32_t largest) {
  if (lanes == 0) return entries == 0 ? 0 : std::numeric_limits<int32_t>::min() / 2;
  int32_t most = std::numeric_limits<int32_t>::min() / 2;
  for (int32_t lane = 1; lane <= std::min(largest, entries); ++lane) {
    most = std::max(most, layout.pages_for(lane) + most_pages(layout, lanes - 1, entries - lane, largest));
  }
  return most;
}

TEST(Footprint, OfLanesThatShareIsThatOfTheDivisionThatNeedsMost) {
  for (const int32_t page_bytes : {64, 128, 192}) {  // pages of 2, 4 and 6 slots
    const CacheGeometry geometry{.layers = 1, .kv_heads = 3, .head_dim = 8, .page_bytes = page_bytes};
    const PageLayout layout = geometry.layout(KvDtype::kF16);
    for (int32_t entries = 3; entries <= 24; ++entries) {
      for (int32_t largest = (entries + 2) / 3; largest <= 24; ++largest) {
        const CachePlan plan{.lane_budgets = {largest, largest, largest},
                             .lane_limits = {largest, largest, largest},
                             .shared_budgets = {entries},
                             .shared_limits = {entries}};
        const Footprint footprint = cache_footprint(geometry, 30, plan);
        ASSERT_EQ(footprint.steady_pages, static_cast<uint64_t>(most_pages(layout, 3, entries, largest)))
            << entries << " entries, " << largest << " at most, pages of " << layout.slots();
      }
    }
  }
}

// Every division among four lanes of two layers that are sure of `smallest` entries each.
TEST(Footprint, OfLayersThatShareIsThatOfTheDivisionThatNeedsMost) {
  const CacheGeometry geometry{.layers = 2, .kv_heads = 2, .head_dim = 8, .page_bytes = 128};  // pages of 4 slots
  const PageLayout layout = geometry.layout(KvDtype::kF16);
  constexpr int32_t kPrompt = 30;
  const uint64_t whole = 2u * static_cast<uint64_t>(layout.pages_for(kPrompt));
  for (int32_t entries = 8; entries <= 40; ++entries) {
    for (int32_t smallest = 1; smallest <= entries / 4; ++smallest) {
      const int32_t largest = std::min(kPrompt, entries - 3 * smallest);
      const CachePlan plan{.lane_budgets = {largest, largest, largest, largest},
                           .lane_limits = {largest, largest, largest, largest},
                           .smallest_lanes = {smallest, smallest},
                           .model_budget = entries,
                           .model_limit = entries};
      const Footprint footprint = cache_footprint(geometry, kPrompt, plan);
      ASSERT_EQ(footprint.steady_pages, static_cast<uint64_t>(most_pages(layout, 4, entries, largest)));
      // While the second layer is whole the first may have all that it is not sure of.
      const auto first =
          static_cast<uint64_t>(most_pages(layout, 2, std::min(entries - 2 * smallest, 2 * largest), largest));
      ASSERT_EQ(footprint.peak_pages, std::max(footprint.steady_pages, whole + first));
    }
  }
}

TEST(Footprint, OfOneLayerThatSharesBesideOneThatDoesNot) {
  const CacheGeometry geometry{.layers = 2, .kv_heads = 2, .head_dim = 64};  // pages of 16 slots
  const CachePlan own{.lane_budgets = {100, 100, 32, 17},
                      .lane_limits = {116, 116, 48, 33},
                      .shared_budgets = {66, 0},
                      .shared_limits = {98, 0}};
  const Footprint footprint = cache_footprint(geometry, 160, own);
  EXPECT_EQ(footprint.peak_pages, 2u + 64 / 16 + 2 * 10);  // 33 and 33 entries, and the second layer whole
  EXPECT_EQ(footprint.steady_pages, 2u + 96 / 16 + 3 + 3);
}

}  // namespace
}  // namespace pkv
