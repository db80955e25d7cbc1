// The footprint against what a cache really allocates when the prefill and the growth of a request are replayed.
#include "server/policy/footprint.h"

#include <random>

#include "gmock/gmock.h"
#include "kernels/reference/reference_backend.h"
#include "server/cache/kv_cache.h"

namespace pkv {
namespace {

// Allocated and auxiliary bytes at the highest instant and at the end.
struct Measured {
  uint64_t peak_bytes = 0;
  uint64_t final_bytes = 0;
  int32_t final_pages = 0;
};

// Layer by layer: the prompt in chunks, then the cut; afterwards `growth` generated tokens.
Measured replay(KvCache& cache, const FootprintInput& input, int32_t growth) {
  const CacheGeometry& geometry = input.geometry;
  const SequenceId id = cache.open(input.dtype);
  cache.add_auxiliary(id, input.own.state_bytes);
  for (int32_t layer = 0; layer < geometry.layers; ++layer) {
    for (int32_t first = 0; first < input.prompt_tokens; first += 13) {
      EXPECT_TRUE(cache.append_slots(id, layer, std::min(13, input.prompt_tokens - first)).ok());
    }
    for (int32_t head = 0; head < geometry.kv_heads; ++head) {
      cache.shrink(id, layer, head, input.own.budgets[static_cast<size_t>(layer * geometry.kv_heads + head)]);
    }
  }
  for (int32_t token = 0; token < growth; ++token) {
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
                         .prompt_tokens = between(1, 200)};
    const int32_t growth = between(0, 40);
    std::vector<int32_t> budgets, limits;
    for (int32_t lane = 0; lane < input.geometry.layers * input.geometry.kv_heads; ++lane) {
      budgets.push_back(between(1, input.prompt_tokens));
      limits.push_back(budgets.back() + growth);
    }
    input.own = {budgets, limits, static_cast<uint64_t>(between(0, 1000))};
    const Footprint footprint = cache_footprint(input);
    auto cache = KvCache::create(*backend, input.geometry, uint64_t{1} << 22);
    ASSERT_TRUE(cache.ok());
    const Measured measured = replay(**cache, input, growth);
    ASSERT_EQ(footprint.peak_bytes, measured.peak_bytes) << round;
    ASSERT_EQ(footprint.steady_bytes, measured.final_bytes) << round;
    ASSERT_EQ(footprint.steady_pages, static_cast<uint64_t>(measured.final_pages));
    ASSERT_GE(footprint.peak_pages, footprint.steady_pages);
    ASSERT_EQ(footprint.peak_bytes,
              input.geometry.bytes_of_pages(footprint.peak_pages, input.dtype) + input.own.state_bytes);
  }
}

TEST(Footprint, OthersTakeTheirPartOfALayerWhileItIsWhole) {
  const CacheGeometry geometry{.layers = 2, .kv_heads = 1, .head_dim = 64};  // pages of 16 slots
  const std::vector<int32_t> own{32, 16}, other{16, 48};
  const Footprint footprint = cache_footprint(
      {.geometry = geometry, .prompt_tokens = 160, .own = {own, own}, .others = {{other, other}, {other, other}}});
  EXPECT_EQ(footprint.steady_pages, 3u + 2 * 4);
  // The second layer whole, the first cut, and both parts of the others.
  EXPECT_EQ(footprint.peak_pages, 10u + 2 + 2 * (1 + 3));
}

}  // namespace
}  // namespace pkv
