// KvCache: ragged lanes, the views a step gets, byte accounting, and what stays when there is no room.
#include "server/cache/kv_cache.h"

#include <algorithm>
#include <map>
#include <random>
#include <set>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/cache/layer_lanes.h"
#include "tests/support/backend_array.h"
#include "tests/support/tested_backend.h"

namespace pkv {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;

// Pages of 64 bytes at head size 4: 4 entries of f16 or 2 of f32.
constexpr CacheGeometry kSmall{.layers = 3, .kv_heads = 2, .head_dim = 4, .page_bytes = 64};

// One of the two lanes of a layer; the other keeps what it has.
void cut_one(KvCache& cache, SequenceId id, int32_t layer, int32_t kv_head, int32_t length) {
  std::vector<int32_t> lengths{cache.length(id, layer, 0), cache.length(id, layer, 1)};
  lengths[static_cast<size_t>(kv_head)] = length;
  cache.cut(id, layer, lengths);
}

class KvCacheTest : public ::testing::Test {
 protected:
  std::unique_ptr<KvCache> make(int32_t pages, const CacheGeometry& geometry = kSmall) {
    auto cache = KvCache::create(*backend_, geometry, static_cast<uint64_t>(pages) * geometry.page_bytes);
    EXPECT_TRUE(cache.ok()) << cache.status();
    return *std::move(cache);
  }
  // Lanes of up to `entries` entries.
  static SequenceId open(KvCache& cache, KvDtype dtype, int32_t entries = 12) {
    const CacheGeometry& geometry = cache.geometry();
    const std::vector<int32_t> limits(static_cast<size_t>(geometry.layers * geometry.kv_heads), entries);
    auto id = cache.open({.dtype = dtype, .lane_entries = limits});
    EXPECT_TRUE(id.ok()) << id.status();
    return *id;
  }
  std::unique_ptr<Backend> backend_ = test::make_tested_backend();
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
  EXPECT_EQ(geometry.layout(KvDtype::kK8V4).slots(), 40);
  EXPECT_EQ(make(10, geometry)->base_view().position_stride, 40);
}

TEST_F(KvCacheTest, CountsEntriesPagesPositionsAndTables) {
  const auto cache = make(100);
  const SequenceId id = open(*cache, KvDtype::kF16);
  ASSERT_TRUE(cache->append_slots(id, 1, 5).ok());
  // Two lanes of 5 entries of 16 bytes; two pages each; a page brings 4 positions and one table entry of 4 bytes.
  CacheBytes bytes = cache->bytes(id);
  EXPECT_EQ(bytes.held, 2u * 5 * 16);
  EXPECT_EQ(bytes.allocated, 4u * 64);
  EXPECT_EQ(bytes.auxiliary, 4u * (4 * 4 + 4));
  EXPECT_EQ(bytes.peak, bytes.allocated + bytes.auxiliary);
  EXPECT_EQ(bytes.peak, kSmall.bytes_of_pages(4, KvDtype::kF16));

  cut_one(*cache, id, 1, 0, 4);
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
  const SequenceId first = open(*cache, KvDtype::kF16);
  ASSERT_TRUE(cache->append_slots(first, 0, 8).ok());
  cache->close(first);
  const SequenceId second = open(*cache, KvDtype::kF16);
  ASSERT_TRUE(cache->append_slots(second, 0, 4).ok());
  EXPECT_EQ(cache->total_bytes().peak, kSmall.bytes_of_pages(4, KvDtype::kF16));
  EXPECT_EQ(cache->bytes(second).peak, kSmall.bytes_of_pages(2, KvDtype::kF16));
}

TEST_F(KvCacheTest, ViewsDescribeTheRowsAStepWrites) {
  const auto cache = make(100);
  const SequenceId id = open(*cache, KvDtype::kF16);
  ASSERT_TRUE(cache->append_slots(id, 0, 6).ok());
  cut_one(*cache, id, 0, 1, 3);
  ASSERT_TRUE(cache->append_slots(id, 0, 2).ok());
  Lane lanes[2];
  cache->view(id, 0, 2, lanes);
  EXPECT_EQ(lanes[0].length, 8);
  EXPECT_EQ(lanes[0].write_slot, 6);
  EXPECT_EQ(lanes[0].visible, 7);
  EXPECT_EQ(lanes[1].length, 5);
  EXPECT_EQ(lanes[1].write_slot, 3);
  EXPECT_EQ(lanes[1].visible, 4);
  // Lane 0 had pages 0 and 1, lane 1 pages 2 and 3; 3 went and came back for the fifth entry of lane 1.
  EXPECT_THAT(cache->page_ids(id, 0, 0), ElementsAre(0, 1));
  EXPECT_THAT(cache->page_ids(id, 0, 1), ElementsAre(2, 3));
}

// What the backend sees of a lane's page table.
std::vector<int32_t> table_on_backend(KvCache& cache, SequenceId id, int32_t layer, int32_t kv_head) {
  const LayerLanes lanes(cache, {id}, layer);
  Lane own[2];
  cache.view(id, layer, 0, own);
  std::vector<int32_t> ids(cache.page_ids(id, layer, kv_head).size());
  const auto count = static_cast<int64_t>(ids.size());
  int32_t* first = const_cast<int32_t*>(lanes.kv().page_ids) + own[kv_head].first_page;
  cache.backend().fetch({ids.data(), {first, DType::kI32, 1, count, count}});
  return ids;
}

TEST_F(KvCacheTest, ALayerMayBeLongerThanItsLanesAreLater) {
  const auto cache = make(100);
  const std::vector<int32_t> limits{5, 30, 5, 5, 5, 5};  // of the first layer one lane keeps all
  const SequenceId id = *cache->open({.dtype = KvDtype::kF16, .lane_entries = limits, .layer_entries = 30});
  for (int32_t layer = 0; layer < 3; ++layer) {
    for (const int32_t rows : {4, 13, 13}) {
      ASSERT_TRUE(cache->append_slots(id, layer, rows).ok());
      for (int32_t head = 0; head < 2; ++head) {
        EXPECT_THAT(table_on_backend(*cache, id, layer, head), ElementsAreArray(cache->page_ids(id, layer, head)));
      }
    }
    std::vector<std::vector<int32_t>> before;
    for (int32_t head = 0; head < 2; ++head) {
      const std::span<const int32_t> ids = cache->page_ids(id, layer, head);
      before.emplace_back(ids.begin(), ids.end());
    }
    cache->cut(id, layer, std::span(limits).subspan(static_cast<size_t>(layer) * 2, 2));
    for (size_t head = 0; head < 2; ++head) {
      const std::vector<int32_t> after = table_on_backend(*cache, id, layer, static_cast<int32_t>(head));
      EXPECT_EQ(after.size(), static_cast<size_t>((limits[static_cast<size_t>(layer) * 2 + head] + 3) / 4));
      EXPECT_THAT(after, ElementsAreArray(before[head].begin(), before[head].begin() + std::ssize(after)));
    }
  }
}

// A layer of f16 entries, 4 to a page, is cut to entries of codes, as many to a page of 64 bytes as their 10 bytes
// allow beside room for eight scales.
TEST_F(KvCacheTest, ACutLeavesEntriesOfTheSequencesOwnFormat) {
  const auto cache = make(100);
  const PageLayout codes = kSmall.layout(KvDtype::kK8V4);
  ASSERT_EQ(codes.slots(), 4);
  const std::vector<int32_t> limits{5, 30, 5, 5, 5, 5};
  const SequenceId id = *cache->open({.dtype = KvDtype::kK8V4, .lane_entries = limits, .layer_entries = 30});
  EXPECT_TRUE(cache->converts(id));
  EXPECT_FALSE(cache->converts(open(*cache, KvDtype::kF32)));
  ASSERT_TRUE(cache->append_slots(id, 0, 30).ok());
  Lane lanes[2];
  cache->view(id, 0, 30, lanes);
  EXPECT_EQ(lanes[0].dtype, KvDtype::kF16);
  EXPECT_EQ(cache->bytes(id).held, 2u * 30 * 16);
  EXPECT_EQ(cache->bytes(id).allocated + cache->bytes(id).auxiliary, kSmall.bytes_of_pages(16, KvDtype::kF16));
  Lane after[2];
  cache->view_cut(id, 0, after);
  EXPECT_EQ(after[1].dtype, KvDtype::kK8V4);
  EXPECT_EQ(after[1].first_page, lanes[1].first_page);
  cache->cut(id, 0, std::vector<int32_t>{5, 30});
  cache->view(id, 0, 0, lanes);
  EXPECT_EQ(lanes[0].dtype, KvDtype::kK8V4);
  EXPECT_EQ(lanes[0].length, 5);
  EXPECT_EQ(cache->bytes(id).held, 35u * 10);
  EXPECT_EQ(cache->bytes(id).allocated + cache->bytes(id).auxiliary, kSmall.bytes_of_pages(2 + 8, KvDtype::kK8V4));
  EXPECT_EQ(cache->bytes(id).peak, kSmall.bytes_of_pages(16, KvDtype::kF16));
  // The next layer is read in f16 again.
  ASSERT_TRUE(cache->append_slots(id, 1, 7).ok());
  cache->view(id, 1, 7, lanes);
  EXPECT_EQ(lanes[1].dtype, KvDtype::kF16);
  EXPECT_EQ(cache->bytes(id).held, 35u * 10 + 2 * 7 * 16);
}

TEST_F(KvCacheTest, PlacesATokenInEveryLaneUpToItsLimit) {
  const auto cache = make(100);
  const std::vector<int32_t> limits{4, 5, 8, 8, 3, 8};
  const SequenceId id = *cache->open({.dtype = KvDtype::kF16, .lane_entries = limits});
  for (int32_t layer = 0; layer < 3; ++layer) ASSERT_TRUE(cache->append_slots(id, layer, 3).ok());
  for (const int64_t full : {1, 2, 3}) EXPECT_EQ(*cache->place_token(id), full);
  std::vector<Lane> lanes(3 * 5);  // another sequence's lanes between the layers
  cache->view_token(id, lanes.data(), 5);
  for (size_t lane = 0; lane < limits.size(); ++lane) {
    const int32_t length = std::min(limits[lane], 6);
    EXPECT_EQ(cache->length(id, static_cast<int32_t>(lane / 2), static_cast<int32_t>(lane % 2)), length);
    const Lane& view = lanes[lane / 2 * 5 + lane % 2];
    EXPECT_EQ(view.length, length);
    EXPECT_EQ(view.visible, length);
    EXPECT_EQ(view.write_slot, length - 1);
    EXPECT_EQ(lanes[lane / 2 * 5 + 2].length, 0);
  }
  EXPECT_EQ(cache->bytes(id).allocated, 64u * (1 + 2 + 2 + 2 + 1 + 2));
}

// What a prompt's whole layer took of the page table is free again once the prompt is done, as its pages are.
TEST_F(KvCacheTest, LongPromptsThatKeepLittleFillThePool) {
  const auto cache = make(202);
  const std::vector<int32_t> limits(6, 1);
  constexpr int32_t kPrompt = 200;  // 2 lanes of 50 pages while a layer is whole
  for (int32_t opened = 0; opened < 17; ++opened) {
    const auto id = cache->open({.dtype = KvDtype::kF16, .lane_entries = limits, .layer_entries = kPrompt});
    ASSERT_TRUE(id.ok()) << opened << ": " << id.status();
    for (int32_t layer = 0; layer < 3; ++layer) {
      ASSERT_TRUE(cache->append_slots(*id, layer, kPrompt).ok()) << opened;
      cache->cut(*id, layer, std::vector<int32_t>{1, 1});
    }
    cache->end_prompt(*id);
  }
  EXPECT_EQ(cache->pool().live(), 17 * 6);
}

TEST_F(KvCacheTest, ALimitMayBeLowered) {
  const auto cache = make(100);
  const SequenceId id = open(*cache, KvDtype::kF16, 8);
  for (int32_t layer = 0; layer < 3; ++layer) ASSERT_TRUE(cache->append_slots(id, layer, 3).ok());
  cache->set_limit(id, 1, 0, 3);
  EXPECT_EQ(*cache->place_token(id), 1);
  EXPECT_EQ(cache->length(id, 1, 0), 3);
  EXPECT_EQ(cache->length(id, 1, 1), 4);
}

// Of 24 entries that six lanes share the first layer has most at first, the last in the end.
TEST_F(KvCacheTest, LanesThatShareGetTheirPlacesWhenTheyAreCut) {
  const auto cache = make(100);
  const std::vector<int32_t> most(6, 20);
  const SequenceId id =
      *cache->open({.dtype = KvDtype::kF16, .lane_entries = most, .layer_entries = 20, .shared_entries = 24 + 6 * 3});
  std::vector<int32_t> lengths(6, 0);
  const std::vector<std::vector<int32_t>> counts = {{16, 4}, {13, 3, 4, 1}, {1, 3, 2, 1, 8, 9}};
  for (int32_t layer = 0; layer < 3; ++layer) {
    ASSERT_TRUE(cache->append_slots(id, layer, 20).ok());
    const std::vector<int32_t>& now = counts[static_cast<size_t>(layer)];
    std::vector<std::vector<int32_t>> before;
    for (int32_t lane = 0; lane < 2 * layer + 2; ++lane) {
      const std::span<const int32_t> ids = cache->page_ids(id, lane / 2, lane % 2);
      before.emplace_back(ids.begin(), ids.end());
    }
    std::copy(now.begin(), now.end(), lengths.begin());
    for (int32_t cut = 0; cut < layer; ++cut) cache->cut(id, cut, std::span(lengths).subspan(size_t(cut) * 2, 2));
    cache->set_limits(id, lengths);
    cache->cut(id, layer, std::span(lengths).subspan(size_t(layer) * 2, 2));
    for (int32_t lane = 0; lane < 2 * layer + 2; ++lane) {
      const std::vector<int32_t> after = table_on_backend(*cache, id, lane / 2, lane % 2);
      const std::vector<int32_t>& old = before[static_cast<size_t>(lane)];
      EXPECT_THAT(after, ElementsAreArray(old.begin(), old.begin() + (now[static_cast<size_t>(lane)] + 3) / 4));
    }
  }
  std::vector<int32_t> grown = lengths;
  for (int32_t& limit : grown) limit += 3;
  cache->set_limits(id, grown);
  cache->end_prompt(id);
  for (int32_t token = 0; token < 3; ++token) EXPECT_EQ(*cache->place_token(id), 0);
  EXPECT_EQ(*cache->place_token(id), 6);
  for (int32_t lane = 0; lane < 6; ++lane) {
    EXPECT_EQ(cache->length(id, lane / 2, lane % 2), grown[static_cast<size_t>(lane)]);
    EXPECT_THAT(table_on_backend(*cache, id, lane / 2, lane % 2),
                ElementsAreArray(cache->page_ids(id, lane / 2, lane % 2)));
  }
  cache->close(id);
  EXPECT_EQ(cache->pool().live(), 0);
}

TEST_F(KvCacheTest, BringsMorePageIdsToTheBackendThanAStepHasRoomFor) {
  const auto cache = make(20000);
  const SequenceId id = open(*cache, KvDtype::kF16, 40000);
  for (const int32_t entries : {30000, 5}) {
    ASSERT_TRUE(cache->append_slots(id, 1, entries).ok());
    for (int32_t head = 0; head < 2; ++head) {
      EXPECT_EQ(table_on_backend(*cache, id, 1, head),
                std::vector<int32_t>(cache->page_ids(id, 1, head).begin(), cache->page_ids(id, 1, head).end()));
    }
  }
}

TEST_F(KvCacheTest, RefusesSequencesBeyondThePageTable) {
  const auto cache = make(3);  // 18 places
  const std::vector<int32_t> limits(6, 8), larger(6, 13);
  EXPECT_EQ(cache->open({.dtype = KvDtype::kF16, .lane_entries = larger}).status().code(),
            absl::StatusCode::kResourceExhausted);
  const absl::StatusOr<SequenceId> id = cache->open({.dtype = KvDtype::kF16, .lane_entries = limits});
  ASSERT_TRUE(id.ok());
  EXPECT_FALSE(cache->open({.dtype = KvDtype::kF16, .lane_entries = limits}).ok());
  cache->close(*id);
  EXPECT_TRUE(cache->open({.dtype = KvDtype::kF16, .lane_entries = limits}).ok());
}

TEST_F(KvCacheTest, ChangesNothingWhereThePoolIsTooSmall) {
  const auto cache = make(5);
  const SequenceId id = open(*cache, KvDtype::kF32, 6);  // 2 entries per page
  ASSERT_TRUE(cache->append_slots(id, 0, 3).ok());       // 2 pages in each of 2 lanes
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
  for (KvDtype dtype : {KvDtype::kF16, KvDtype::kF32, KvDtype::kBF16, KvDtype::kK8V4}) {
    const auto cache = make(100);
    const SequenceId other = open(*cache, dtype), id = open(*cache, dtype);
    ASSERT_TRUE(cache->append_slots(id, 2, 3).ok());
    ASSERT_TRUE(cache->append_slots(other, 2, 3).ok());  // scatters the pages
    ASSERT_TRUE(cache->append_slots(id, 2, 7).ok());
    const LayerLanes lanes(*cache, {id}, 2, 10);
    const std::vector<int32_t> positions{0, 1, 2, 30, 31, 32, 33, 600, 601, 700};
    const test::BackendArray<RowSpan> span(*backend_, {{.first_row = 0, .rows = 10, .first_lane = 0}});
    auto rows = backend_->allocate(10, 2 * 4, DType::kF32);
    ASSERT_TRUE(rows.ok());
    backend_->fill(rows->view(), 1.0f);
    backend_->write_kv(rows->view(), rows->view(), test::BackendArray<int32_t>(*backend_, positions).data(), lanes.kv(),
                       row_spans(span), 2);
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
  static constexpr int32_t kLimit = 60;  // entries of a lane

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
  int refused_opens() const { return refused_opens_; }

  void check() {
    ++checks_;
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
        for (int32_t head = 0; head < 2; ++head) {
          for (int32_t page : cache_.page_ids(id, layer, head)) {
            ASSERT_TRUE(used.insert(page).second) << "a page in two lanes";
          }
          if (checks_ % 16 != 0) continue;
          ASSERT_THAT(table_on_backend(cache_, id, layer, head), ElementsAreArray(cache_.page_ids(id, layer, head)));
        }
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
    const KvDtype dtype = kEntryFormats.rows[below(4)].id;
    const std::vector<int32_t> limits(6, kLimit);
    const int32_t places = 6 * kSmall.layout(dtype).pages_for(kLimit);
    const absl::StatusOr<SequenceId> id = cache_.open({.dtype = dtype, .lane_entries = limits});
    // Whatever gaps there are between the others.
    ASSERT_EQ(id.ok(), places_ + places <= cache_.page_table().places());
    if (!id.ok()) return void(++refused_opens_);
    places_ += places;
    ASSERT_TRUE(sequences_.emplace(*id, Expected{dtype, std::vector<int32_t>(6, 0)}).second) << "an id used twice";
    ASSERT_EQ(cache_.dtype(*id), dtype);
  }
  void close(SequenceId id) {
    places_ -= 6 * kSmall.layout(cache_.dtype(id)).pages_for(kLimit);
    cache_.close(id);
    sequences_.erase(id);
  }
  void append(SequenceId id) {
    Expected& expected = sequences_.at(id);
    const int32_t layer = below(3);
    const int32_t room =
        kLimit - std::max(expected.lengths[size_t(layer) * 2], expected.lengths[size_t(layer) * 2 + 1]);
    const int32_t count = std::min(below(20), room);
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
    cut_one(cache_, id, lane / 2, lane % 2, length);
  }

  KvCache& cache_;
  std::mt19937 random_;
  std::map<SequenceId, Expected> sequences_;
  uint64_t peak_ = 0;
  int checks_ = 0;
  int32_t places_ = 0;  // of the page table, in use
  int appended_ = 0, refused_ = 0, refused_opens_ = 0;
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
    EXPECT_GT(replay.refused_opens(), 10);
    replay.close_all();
    EXPECT_EQ(cache->pool().free(), 150);
    EXPECT_EQ(cache->total_bytes().held, 0u);
    EXPECT_EQ(cache->total_bytes().auxiliary, 0u);
  }
}

}  // namespace
}  // namespace pkv
