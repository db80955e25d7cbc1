// KvCache: ragged lanes, the views a step gets, byte accounting, and what stays when there is no room.
#include "server/cache/kv_cache.h"

#include <algorithm>
#include <map>
#include <random>
#include <set>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/reference/reference_backend.h"

namespace pkv {
namespace {

using ::testing::ElementsAre;

// Pages of 64 bytes at head size 4: 4 entries of f16 or 2 of f32.
constexpr CacheGeometry kSmall{.layers = 3, .kv_heads = 2, .head_dim = 4, .page_bytes = 64};

class KvCacheTest : public ::testing::Test {
 protected:
  std::unique_ptr<KvCache> make(int32_t pages, const CacheGeometry& geometry = kSmall) {
    auto cache = KvCache::create(*backend_, geometry, static_cast<uint64_t>(pages) * geometry.page_bytes);
    EXPECT_TRUE(cache.ok()) << cache.status();
    return *std::move(cache);
  }
  std::unique_ptr<Backend> backend_ = make_reference_backend();
};

TEST_F(KvCacheTest, RefusesGeometriesThatHoldNothing) {
  const auto code = [&](CacheGeometry geometry, uint64_t pool_bytes) {
    return KvCache::create(*backend_, geometry, pool_bytes).status().code();
  };
  EXPECT_EQ(code(kSmall, 64), absl::StatusCode::kOk);
  EXPECT_EQ(code(kSmall, 63), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(kSmall, uint64_t{64} << 31), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.layers = 3, .kv_heads = 2, .head_dim = 4, .page_bytes = 96}, 4096),
            absl::StatusCode::kInvalidArgument);
  // An entry of f32 at head size 64 has 512 bytes.
  EXPECT_EQ(code({.layers = 1, .kv_heads = 1, .head_dim = 64, .page_bytes = 448}, 4096),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.layers = 1, .kv_heads = 1, .head_dim = 64, .page_bytes = 512}, 4096), absl::StatusCode::kOk);
  EXPECT_EQ(code({.layers = 0, .kv_heads = 1, .head_dim = 64}, 4096), absl::StatusCode::kInvalidArgument);
}

TEST_F(KvCacheTest, PagesOfTheDefaultModelHold16HalvesOr8Floats) {
  const CacheGeometry geometry{.layers = 30, .kv_heads = 3, .head_dim = 64};
  EXPECT_EQ(geometry.layout(KvDtype::kF16).slots(), 16);
  EXPECT_EQ(geometry.layout(KvDtype::kF32).slots(), 8);
  EXPECT_EQ(make(10, geometry)->base_view().position_stride, 16);
}

TEST_F(KvCacheTest, CountsEntriesPagesPositionsAndTables) {
  const auto cache = make(100);
  const SequenceId id = cache->open(KvDtype::kF16);
  ASSERT_TRUE(cache->append_slots(id, 1, 5).ok());
  // Two lanes of 5 entries of 16 bytes; two pages each; a page brings 4 positions and one table entry of 4 bytes.
  CacheBytes bytes = cache->bytes(id);
  EXPECT_EQ(bytes.held, 2u * 5 * 16);
  EXPECT_EQ(bytes.allocated, 4u * 64);
  EXPECT_EQ(bytes.auxiliary, 4u * (4 * 4 + 4));
  EXPECT_EQ(bytes.peak, bytes.allocated + bytes.auxiliary);
  EXPECT_EQ(bytes.peak, kSmall.bytes_of_pages(4, KvDtype::kF16));

  cache->shrink(id, 1, 0, 4);
  EXPECT_EQ(cache->bytes(id).held, 9u * 16);
  EXPECT_EQ(cache->bytes(id).allocated, 3u * 64);
  EXPECT_EQ(cache->bytes(id).peak, bytes.peak);
  EXPECT_EQ(cache->length(id, 1, 0), 4);
  EXPECT_EQ(cache->length(id, 1, 1), 5);
  EXPECT_EQ(cache->length(id, 0, 0), 0);
  cache->close(id);
  EXPECT_EQ(cache->total_bytes().allocated, 0u);
  EXPECT_EQ(cache->total_bytes().peak, bytes.peak);
}

TEST_F(KvCacheTest, TotalPeakIsOfTheWholeNotTheSumOfPeaks) {
  const auto cache = make(100);
  const SequenceId first = cache->open(KvDtype::kF16);
  ASSERT_TRUE(cache->append_slots(first, 0, 8).ok());
  cache->close(first);
  const SequenceId second = cache->open(KvDtype::kF16);
  ASSERT_TRUE(cache->append_slots(second, 0, 4).ok());
  EXPECT_EQ(cache->total_bytes().peak, kSmall.bytes_of_pages(4, KvDtype::kF16));
  EXPECT_EQ(cache->bytes(second).peak, kSmall.bytes_of_pages(2, KvDtype::kF16));
}

TEST_F(KvCacheTest, ViewsDescribeTheRowsAStepWrites) {
  const auto cache = make(100);
  const SequenceId id = cache->open(KvDtype::kF16);
  ASSERT_TRUE(cache->append_slots(id, 0, 6).ok());
  cache->shrink(id, 0, 1, 3);
  ASSERT_TRUE(cache->append_slots(id, 0, 2).ok());
  std::vector<Lane> lanes(1);
  std::vector<int32_t> page_ids{42};
  cache->view(id, 0, 2, lanes, page_ids);
  ASSERT_EQ(lanes.size(), 3u);
  EXPECT_EQ(lanes[1].first_page, 1);
  EXPECT_EQ(lanes[1].length, 8);
  EXPECT_EQ(lanes[1].write_slot, 6);
  EXPECT_EQ(lanes[1].visible, 7);
  EXPECT_EQ(lanes[2].first_page, 3);
  EXPECT_EQ(lanes[2].length, 5);
  EXPECT_EQ(lanes[2].write_slot, 3);
  EXPECT_EQ(lanes[2].visible, 4);
  // Lane 0 had pages 0 and 1, lane 1 pages 2 and 3; 3 went and came back for the fifth entry of lane 1.
  EXPECT_THAT(page_ids, ElementsAre(42, 0, 1, 2, 3));
}

TEST_F(KvCacheTest, ChangesNothingWhereThePoolIsTooSmall) {
  const auto cache = make(5);
  const SequenceId id = cache->open(KvDtype::kF32);  // 2 entries per page
  ASSERT_TRUE(cache->append_slots(id, 0, 3).ok());   // 2 pages in each of 2 lanes
  const CacheBytes before = cache->bytes(id);
  const absl::Status status = cache->append_slots(id, 0, 2);  // one more page each
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(cache->pool().free(), 1);
  EXPECT_EQ(cache->length(id, 0, 0), 3);
  EXPECT_EQ(cache->length(id, 0, 1), 3);
  EXPECT_EQ(cache->bytes(id).held, before.held);
  EXPECT_EQ(cache->bytes(id).allocated, before.allocated);
  EXPECT_EQ(cache->bytes(id).peak, before.peak);
  EXPECT_TRUE(cache->append_slots(id, 0, 1).ok());  // fills the pages there are
}

TEST_F(KvCacheTest, PositionsAreReadInSlotOrder) {
  for (KvDtype dtype : {KvDtype::kF16, KvDtype::kF32}) {
    const auto cache = make(100);
    const SequenceId other = cache->open(dtype), id = cache->open(dtype);
    ASSERT_TRUE(cache->append_slots(id, 2, 3).ok());
    ASSERT_TRUE(cache->append_slots(other, 2, 3).ok());  // scatters the pages
    ASSERT_TRUE(cache->append_slots(id, 2, 7).ok());
    std::vector<Lane> lanes;
    std::vector<int32_t> page_ids;
    cache->view(id, 2, 10, lanes, page_ids);
    KvView view = cache->base_view();
    view.lanes = lanes.data();
    view.lane_count = 2;
    view.page_ids = page_ids.data();
    const std::vector<int32_t> positions{0, 1, 2, 30, 31, 32, 33, 600, 601, 700};
    const RowSpan span{.first_row = 0, .rows = 10, .first_lane = 0};
    auto rows = backend_->allocate(10, 2 * 4, DType::kF32);
    ASSERT_TRUE(rows.ok());
    backend_->upload(rows->view(), std::vector<float>(80, 1.0f).data());
    backend_->write_kv(rows->view(), rows->view(), positions.data(), view, {&span, 1}, 2);
    EXPECT_EQ(cache->positions(id, 2, 0), positions);
    EXPECT_EQ(cache->positions(id, 2, 1), positions);
  }
}

// What a cache should hold, kept by the simplest means.
struct Expected {
  KvDtype dtype;
  std::vector<int32_t> lengths;  // [layers * kv_heads]
  uint64_t peak = 0;
};

class Replay {
 public:
  Replay(KvCache& cache, uint32_t seed) : cache_(cache), random_(seed) {}

  void step() {
    const uint32_t what = random_() % 10;
    if (sequences_.empty() || what == 0) return open();
    auto chosen = std::next(sequences_.begin(), below(static_cast<int32_t>(sequences_.size())));
    if (what == 1) return close(chosen->first);
    what < 7 ? append(chosen->first) : shrink(chosen->first);
  }

  void close_all() {
    while (!sequences_.empty()) close(sequences_.begin()->first);
  }

  int appended() const { return appended_; }
  int refused() const { return refused_; }

  void check() {
    uint64_t pages = 0, held = 0, bytes = 0;
    std::set<int32_t> used;
    for (auto& [id, expected] : sequences_) {
      const PageLayout layout = kSmall.layout(expected.dtype);
      uint64_t own_pages = 0, entries = 0;
      for (int32_t lane = 0; lane < 6; ++lane) {
        const int32_t length = expected.lengths[static_cast<size_t>(lane)];
        ASSERT_EQ(cache_.length(id, lane / 2, lane % 2), length);
        entries += static_cast<uint64_t>(length);
        own_pages += static_cast<uint64_t>((length + layout.slots() - 1) / layout.slots());
      }
      for (int32_t layer = 0; layer < 3; ++layer) {
        std::vector<Lane> lanes;
        std::vector<int32_t> page_ids;
        cache_.view(id, layer, 0, lanes, page_ids);
        for (int32_t page : page_ids) ASSERT_TRUE(used.insert(page).second) << "a page in two lanes";
      }
      const uint64_t own_bytes = kSmall.bytes_of_pages(own_pages, expected.dtype);
      expected.peak = std::max(expected.peak, own_bytes);
      const CacheBytes actual = cache_.bytes(id);
      ASSERT_EQ(actual.held, entries * static_cast<uint64_t>(layout.entry_bytes()));
      ASSERT_EQ(actual.allocated, own_pages * 64);
      ASSERT_EQ(actual.allocated + actual.auxiliary, own_bytes);
      ASSERT_EQ(actual.peak, expected.peak);
      pages += own_pages;
      held += actual.held;
      bytes += own_bytes;
    }
    peak_ = std::max(peak_, bytes);
    ASSERT_EQ(used.size(), pages);
    ASSERT_EQ(cache_.pool().live(), static_cast<int32_t>(pages));
    ASSERT_EQ(cache_.pool().free() + cache_.pool().live(), cache_.pool().total());
    ASSERT_EQ(cache_.total_bytes().held, held);
    ASSERT_EQ(cache_.total_bytes().allocated + cache_.total_bytes().auxiliary, bytes);
    ASSERT_EQ(cache_.total_bytes().peak, peak_);
  }

 private:
  int32_t below(int32_t limit) { return static_cast<int32_t>(random_() % static_cast<uint32_t>(limit)); }

  void open() {
    const KvDtype dtype = below(2) == 0 ? KvDtype::kF16 : KvDtype::kF32;
    const SequenceId id = cache_.open(dtype);
    ASSERT_TRUE(sequences_.emplace(id, Expected{dtype, std::vector<int32_t>(6, 0)}).second) << "an id used twice";
    ASSERT_EQ(cache_.dtype(id), dtype);
  }
  void close(SequenceId id) {
    cache_.close(id);
    sequences_.erase(id);
  }
  void append(SequenceId id) {
    Expected& expected = sequences_.at(id);
    const int32_t layer = below(3), count = below(20);
    const PageLayout layout = kSmall.layout(expected.dtype);
    int32_t needed = 0;
    for (size_t lane : {size_t(layer) * 2, size_t(layer) * 2 + 1}) {
      needed += layout.pages_for(expected.lengths[lane] + count) - layout.pages_for(expected.lengths[lane]);
    }
    const bool fits = needed <= cache_.pool().free();
    ASSERT_EQ(cache_.append_slots(id, layer, count).ok(), fits);
    (fits ? appended_ : refused_)++;
    if (!fits) return;
    expected.lengths[size_t(layer) * 2] += count;
    expected.lengths[size_t(layer) * 2 + 1] += count;
  }
  void shrink(SequenceId id) {
    Expected& expected = sequences_.at(id);
    const int32_t lane = below(6);
    int32_t& length = expected.lengths[static_cast<size_t>(lane)];
    length = below(length + 1);
    cache_.shrink(id, lane / 2, lane % 2, length);
  }

  KvCache& cache_;
  std::mt19937 random_;
  std::map<SequenceId, Expected> sequences_;
  uint64_t peak_ = 0;
  int appended_ = 0, refused_ = 0;
};

TEST_F(KvCacheTest, AccountsExactlyUnderRandomUseAndLeaksNothing) {
  for (uint32_t seed = 1; seed <= 4; ++seed) {
    const auto cache = make(150);
    Replay replay(*cache, seed);
    for (int round = 0; round < 3000; ++round) {
      replay.step();
      replay.check();
      if (HasFatalFailure()) return;
    }
    EXPECT_GT(replay.appended(), 100);
    EXPECT_GT(replay.refused(), 10);
    replay.close_all();
    EXPECT_EQ(cache->pool().free(), 150);
    EXPECT_EQ(cache->total_bytes().held, 0u);
    EXPECT_EQ(cache->total_bytes().auxiliary, 0u);
  }
}

}  // namespace
}  // namespace pkv
