// Positions relative to the cache: whatever the stored keys are turned by, a query meets every key at the distance that
// the two have in the cache, as if all keys had been rotated anew by their places (StreamingLLM, section 3.2).
#include "server/policy/cache_relative.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "kernels/reference/reference_backend.h"
#include "server/cache/layer_lanes.h"

namespace pkv {
namespace {

constexpr CacheGeometry kGeometry{.layers = 2, .kv_heads = 2, .head_dim = 8, .page_bytes = 192};  // 3 slots a page
constexpr int32_t kWidth = kGeometry.kv_heads * kGeometry.head_dim;
constexpr float kInvFreq[] = {1.0f, 0.3f, 0.05f};  // the last pair of dimensions stays as it is

using Row = std::vector<float>;

// A sequence whose prompt is cut to its sinks and newest tokens, and that drops the oldest but the sinks from then on.
class RelativeSequence {
 public:
  RelativeSequence(Backend& backend, int32_t sinks, int32_t prompt, int32_t limit, int32_t max_positions)
      : backend_(backend), sinks_(sinks), limit_(limit) {
    auto cache = KvCache::create(backend, kGeometry, uint64_t{1} << 20);
    auto relative = CacheRelative::create(backend, {.geometry = kGeometry,
                                                    .sinks = sinks,
                                                    .prompt_tokens = prompt,
                                                    .max_positions = max_positions,
                                                    .rope = rope(1.25f)});
    EXPECT_TRUE(cache.ok() && relative.ok());
    cache_ = *std::move(cache);
    relative_ = *std::move(relative);
    id_ = cache_->open(KvDtype::kF32);
    for (int32_t layer = 0; layer < kGeometry.layers; ++layer) read_prompt(layer, prompt);
  }

  // Entries of a lane, with the new one where there is one.
  int32_t length() const { return static_cast<int32_t>(slots_.size()); }
  // Makes room for the next token and writes it as the model would. Returns its position in use.
  int32_t step() {
    int32_t slot = length();
    if (slot == limit_) {  // the oldest but the sinks
      slot = sinks_;
      for (int32_t other = sinks_; other < limit_; ++other) {
        if (age_of(other) > age_of(slot)) slot = other;
      }
    } else {
      slots_.push_back(0);
    }
    slots_[static_cast<size_t>(slot)] = static_cast<int32_t>(text_.size());
    text_.push_back(row());
    for (int32_t layer = 0; layer < kGeometry.layers; ++layer) {
      const std::vector<int32_t> places(kGeometry.kv_heads, slot);
      EXPECT_TRUE(cache_->place_token(id_, layer, places).ok());
    }
    const int32_t angle = relative_->begin_token(*cache_, id_, length());
    for (int32_t layer = 0; layer < kGeometry.layers; ++layer) {
      LayerLanes lanes(*cache_, {id_}, layer);
      for (Lane& lane : lanes.lanes()) lane.write_slot = slot;
      const Tensor key = rotated(of_layer(text_.back(), layer), angle);
      const RowSpan span{.first_row = 0, .rows = 1, .first_lane = 0};
      const auto position = static_cast<int32_t>(text_.size()) - 1;
      backend_.write_kv(key.view(), key.view(), &position, lanes.kv(), {&span, 1}, kGeometry.kv_heads);
    }
    return angle;
  }

  // The largest difference that a query at `angle` makes between the stored keys, and the keys as they were before any
  // rotation, rotated by their places in the cache and met by a query at the last place.
  double worst_difference(int32_t angle) {
    double worst = 0;
    const Row query = row();
    for (int32_t layer = 0; layer < kGeometry.layers; ++layer) {
      const Tensor now = rotated(query, angle), wanted = rotated(query, length() - 1);
      LayerLanes lanes(*cache_, {id_}, layer);
      for (int32_t slot = 0; slot < length(); ++slot) {
        const Row& token = text_[static_cast<size_t>(slots_[static_cast<size_t>(slot)])];
        const Tensor key = rotated(of_layer(token, layer), place_of(slot));
        for (int32_t head = 0; head < kGeometry.kv_heads; ++head) {
          const double stored = dot(now, stored_key(lanes.kv(), head, slot), head);
          worst = std::max(worst, std::abs(stored - dot(wanted, key_of(key, head), head)));
        }
      }
    }
    return worst;
  }
  std::vector<int32_t> positions() const { return cache_->positions(id_, 1, 1); }

 private:
  static RopeSpec rope(float magnitude) {
    return {.inv_freq = kInvFreq,
            .pairs = static_cast<int32_t>(std::size(kInvFreq)),
            .pairing = RopePairing::kHalves,
            .head_dim = kGeometry.head_dim,
            .magnitude = magnitude};
  }
  Row row() {
    Row result;
    for (int32_t i = 0; i < kWidth; ++i) result.push_back(static_cast<float>(random_() % 65536) / 32768.0f - 1.0f);
    return result;
  }
  // Another key in every layer.
  static Row of_layer(Row token, int32_t layer) {
    for (float& value : token) value *= static_cast<float>(1 + layer);
    return token;
  }
  Tensor rotated(const Row& values, int32_t position) {
    auto tensor = backend_.allocate(1, kWidth, DType::kF32);
    backend_.upload(tensor->view(), values.data());
    backend_.rope(tensor->view(), &position, rope(1.25f));
    return *std::move(tensor);
  }
  static Row key_of(const Tensor& keys, int32_t head) {
    const float* first = keys.view().f32() + head * kGeometry.head_dim;
    return {first, first + kGeometry.head_dim};
  }
  static Row stored_key(const KvView& kv, int32_t head, int32_t slot) {
    const Lane& lane = kv.lanes[head];
    const PageLayout layout = page_layout(kv, lane);
    Row key;
    for (int32_t i = 0; i < kGeometry.head_dim; ++i) {
      const std::byte* page = kv.page(lane, slot / layout.slots());
      key.push_back(*reinterpret_cast<const float*>(page + layout.key_at(slot % layout.slots(), i)));
    }
    return key;
  }
  static double dot(const Tensor& query, const Row& key, int32_t head) {
    double sum = 0;
    const Row part = key_of(query, head);
    for (size_t i = 0; i < key.size(); ++i) sum += static_cast<double>(part[i]) * key[i];
    return sum;
  }

  int32_t age_of(int32_t slot) const { return static_cast<int32_t>(text_.size()) - slots_[static_cast<size_t>(slot)]; }
  // In the cache: the sinks first, then the others by age.
  int32_t place_of(int32_t slot) const { return slot < sinks_ ? slot : length() - age_of(slot); }

  void read_prompt(int32_t layer, int32_t prompt) {
    if (layer == 0) {
      for (int32_t i = 0; i < prompt; ++i) text_.push_back(row());
      for (int32_t i = 0; i < prompt; ++i) {
        if (i < sinks_ || i >= prompt - (limit_ - sinks_)) slots_.push_back(i);
      }
    }
    EXPECT_TRUE(cache_->append_slots(id_, layer, length()).ok());
    LayerLanes lanes(*cache_, {id_}, layer);
    const RowSpan span{.first_row = 0, .rows = 1, .first_lane = 0};
    int32_t slot = 0;
    for (int32_t i = 0; i < prompt; ++i) {  // one row at a time, as if every chunk had one
      const Tensor key = rotated(of_layer(text_[static_cast<size_t>(i)], layer), i);
      relative_->capture(layer, key.view(), key.view(), i);
      if (slot == length() || slots_[static_cast<size_t>(slot)] != i) continue;
      for (Lane& lane : lanes.lanes()) lane.write_slot = slot;
      backend_.write_kv(key.view(), key.view(), &i, lanes.kv(), {&span, 1}, kGeometry.kv_heads);
      ++slot;
    }
  }

  Backend& backend_;
  int32_t sinks_, limit_;
  std::unique_ptr<KvCache> cache_;
  std::unique_ptr<CacheRelative> relative_;
  SequenceId id_ = 0;
  std::vector<Row> text_;       // keys of all tokens so far, not rotated
  std::vector<int32_t> slots_;  // which token a slot holds
  std::mt19937 random_{5};
};

class CacheRelativeTest : public testing::Test {
 protected:
  std::unique_ptr<Backend> backend_ = make_reference_backend();
};

TEST_F(CacheRelativeTest, EveryKeyIsMetAtItsDistanceInTheCache) {
  for (const int32_t sinks : {0, 1, 3}) {
    SCOPED_TRACE(sinks);
    RelativeSequence sequence(*backend_, sinks, /*prompt=*/20, /*limit=*/9, /*max_positions=*/4096);
    for (int32_t token = 0; token < 30; ++token) {
      const int32_t angle = sequence.step();
      EXPECT_EQ(angle, 20 + token);
      ASSERT_LT(sequence.worst_difference(angle), 1e-4) << "token " << token;
    }
  }
}

TEST_F(CacheRelativeTest, PositionsInUseStayBelowTheModelsLength) {
  RelativeSequence sequence(*backend_, /*sinks=*/2, /*prompt=*/20, /*limit=*/9, /*max_positions=*/24);
  int32_t last = 19, turned_back = 0;
  for (int32_t token = 0; token < 60; ++token) {
    const int32_t angle = sequence.step();
    ASSERT_LT(angle, 24);
    if (angle != last + 1) {
      ++turned_back;
      EXPECT_EQ(last, 23);
      EXPECT_EQ(angle, sequence.length() - 1);
    }
    last = angle;
    ASSERT_LT(sequence.worst_difference(angle), 1e-4) << "token " << token;
  }
  EXPECT_EQ(turned_back, 4);  // at 24, and then every 24 - 8 tokens
}

TEST_F(CacheRelativeTest, SinksKeepTheirRecordedPositions) {
  RelativeSequence sequence(*backend_, /*sinks=*/3, /*prompt=*/12, /*limit=*/6, /*max_positions=*/4096);
  for (int32_t token = 0; token < 5; ++token) sequence.step();
  const std::vector<int32_t> held = sequence.positions();
  EXPECT_EQ(std::vector<int32_t>(held.begin(), held.begin() + 3), (std::vector<int32_t>{0, 1, 2}));
}

TEST_F(CacheRelativeTest, APromptMayBeShorterThanTheSinks) {
  RelativeSequence sequence(*backend_, /*sinks=*/4, /*prompt=*/4, /*limit=*/8, /*max_positions=*/4096);
  for (int32_t token = 0; token < 8; ++token) {
    const int32_t angle = sequence.step();
    ASSERT_LT(sequence.worst_difference(angle), 1e-4) << "token " << token;
  }
}

TEST_F(CacheRelativeTest, CountsTheCopiesOfTheSinks) {
  EXPECT_EQ(CacheRelative::state_bytes(kGeometry, 0), 0u);
  // Keys and values of two layers, and the rows that are turned.
  EXPECT_EQ(CacheRelative::state_bytes(kGeometry, 3), uint64_t{4} * 3 * kWidth * (2 * 2 + 1));
}

}  // namespace
}  // namespace pkv
