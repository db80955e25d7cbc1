// The footprint against what a cache really allocates when the prefill and the growth of a request are replayed.
#include "server/policy/footprint.h"

#include <random>

#include "gmock/gmock.h"
#include "kernels/reference/reference_backend.h"
#include "server/cache/kv_cache.h"
#include "tests/unit/policy/policy_specs.h"

namespace pkv {
namespace {

// Allocated and auxiliary bytes at the highest instant and at the end.
struct Measured {
  uint64_t peak_bytes = 0;
  uint64_t final_bytes = 0;
  int32_t final_pages = 0;
};

// Layer by layer: the prompt in chunks, then the cut; afterwards all generated tokens but the last.
Measured replay(KvCache& cache, const FootprintInput& input) {
  const CacheGeometry& geometry = input.geometry;
  const SequenceId id = cache.open(input.dtype);
  for (int32_t layer = 0; layer < geometry.layers; ++layer) {
    for (int32_t first = 0; first < input.prompt_tokens; first += 13) {
      EXPECT_TRUE(cache.append_slots(id, layer, std::min(13, input.prompt_tokens - first)).ok());
    }
    for (int32_t head = 0; head < geometry.kv_heads; ++head) {
      cache.shrink(id, layer, head, input.lane_budgets[static_cast<size_t>(layer * geometry.kv_heads + head)]);
    }
  }
  for (int32_t token = 1; token < input.max_tokens; ++token) {
    for (int32_t layer = 0; layer < geometry.layers; ++layer) EXPECT_TRUE(cache.append_slots(id, layer, 1).ok());
  }
  const CacheBytes bytes = cache.bytes(id);
  const Measured measured{bytes.peak, bytes.allocated + bytes.auxiliary, cache.pool().live()};
  cache.close(id);
  return measured;
}

TEST(Footprint, IsWhatACacheReallyAllocates) {
  const auto backend = make_reference_backend();
  std::mt19937 random(5);
  const auto between = [&](int32_t low, int32_t high) {
    return low + static_cast<int32_t>(random() % static_cast<uint32_t>(high - low + 1));
  };
  for (int round = 0; round < 300; ++round) {
    FootprintInput input{.geometry = {.layers = between(1, 12),
                                      .kv_heads = between(1, 4),
                                      .head_dim = 4 * between(1, 5),
                                      .page_bytes = 64 * between(3, 8)},
                         .dtype = between(0, 1) == 0 ? KvDtype::kF16 : KvDtype::kF32,
                         .prompt_tokens = between(1, 200),
                         .max_tokens = between(0, 40)};
    std::vector<int32_t> budgets;
    if (round % 4 == 0) {  // any budgets, lane by lane
      for (int32_t lane = 0; lane < input.geometry.layers * input.geometry.kv_heads; ++lane) {
        budgets.push_back(between(1, input.prompt_tokens));
      }
    } else {
      PolicySpec spec = spec_of(static_cast<PolicyKind>(round % 3), between(9, 120));
      spec.params.allocation = between(0, 1) == 0 ? PyramidAllocation::kExact : PyramidAllocation::kFactory;
      budgets = policy_of(spec)->lane_budgets(input.prompt_tokens, input.geometry);
    }
    input.lane_budgets = budgets;
    const Footprint footprint = cache_footprint(input);
    auto cache = KvCache::create(*backend, input.geometry, uint64_t{1} << 22);
    ASSERT_TRUE(cache.ok());
    const Measured measured = replay(**cache, input);
    ASSERT_EQ(footprint.peak_bytes, measured.peak_bytes) << round;
    ASSERT_EQ(footprint.steady_bytes, measured.final_bytes) << round;
    ASSERT_EQ(footprint.steady_pages, static_cast<uint64_t>(measured.final_pages));
    ASSERT_GE(footprint.peak_pages, footprint.steady_pages);
    ASSERT_EQ(footprint.peak_bytes, input.geometry.bytes_of_pages(footprint.peak_pages, input.dtype));
  }
}

// The default model's shape with PyramidKV at 128 and a prompt of 8,000 tokens, by hand.
TEST(Footprint, OfTheDefaultModel) {
  const CacheGeometry geometry{.layers = 30, .kv_heads = 3, .head_dim = 64};
  const auto budgets = policy_of(spec_of(PolicyKind::kPyramidKv, 128))->lane_budgets(8000, geometry);
  const Footprint footprint =
      cache_footprint({.geometry = geometry, .prompt_tokens = 8000, .max_tokens = 1, .lane_budgets = budgets});
  // Pages of 16 slots for 242 234 226 218 211 203 195 187 179 171 163 156 148 140 132 124 116 108 100 93 85 77 69 61 53
  // 45 38 30 22 14 entries; the peak is before the last layer is cut: 500 pages a head for its 8,000 entries.
  const uint64_t kept_pages = 16 + 15 + 15 + 14 + 14 + 13 + 13 + 12 + 12 + 11 + 11 + 10 + 10 + 9 + 9 + 8 + 8 + 7 + 7 +
                              6 + 6 + 5 + 5 + 4 + 4 + 3 + 3 + 2 + 2 + 1;
  EXPECT_EQ(footprint.steady_pages, 3 * kept_pages);
  EXPECT_EQ(footprint.peak_pages, 3 * (kept_pages - 1 + 500));
  EXPECT_EQ(footprint.peak_bytes, footprint.peak_pages * (4096 + 4 * 16 + 4));
}

TEST(Footprint, TheLastGeneratedTokenIsNeverWritten) {
  const CacheGeometry geometry{.layers = 2, .kv_heads = 1, .head_dim = 64};
  const std::vector<int32_t> budgets{16, 16};
  const auto steady = [&](int32_t max_tokens) {
    return cache_footprint(
               {.geometry = geometry, .prompt_tokens = 16, .max_tokens = max_tokens, .lane_budgets = budgets})
        .steady_pages;
  };
  EXPECT_EQ(steady(0), 2u);
  EXPECT_EQ(steady(1), 2u);
  EXPECT_EQ(steady(2), 4u);
  EXPECT_EQ(steady(17), 4u);
  EXPECT_EQ(steady(18), 6u);
}

}  // namespace
}  // namespace pkv
