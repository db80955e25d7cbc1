// Gathering entries in the CPU backend: in place and between lanes, in every order, with more threads than a lane has
// parts.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "kernels/cpu/attention/attention.h"
#include "tests/kernels/attention_fixture.h"

namespace pkv {
namespace {

constexpr int32_t kHeadDim = 80;
constexpr int32_t kFrom = 1;
constexpr int32_t kOther = 2;

// Lane 0 is a neighbour, lane 1 holds 400 entries, lane 2 has room for as many.
void gather_and_compare(const std::vector<int32_t>& kept, int32_t to) {
  for (const KvDtype dtype : {KvDtype::kF16, KvDtype::kF32, KvDtype::kBF16, KvDtype::kK8V4}) {
    for (const int32_t page_bytes : {4096, 3072}) {
      PagedLanes cache(kHeadDim, page_bytes, {{50, dtype}, {400, dtype}, {3, dtype}}, 400, 9);
      const PagedLanes before = cache;
      std::vector<int32_t> slots = kept;
      slots.push_back(-1);  // behind the count
      const auto count = static_cast<int32_t>(kept.size());
      ThreadPool pool(4);
      CpuAttention attention(detect_isa(), false, pool);
      std::vector<int32_t> counts = {count};
      attention.gather(cache.view(), kFrom, {slots.data(), DType::kI32, 1, count + 1, count + 1},
                       {counts.data(), DType::kI32, 1, 1, 1}, to);
      const auto expect_entry = [&](int32_t lane, int32_t slot, int32_t from_lane, int32_t from_slot) {
        ASSERT_EQ(cache.position(lane, slot), before.position(from_lane, from_slot));
        ASSERT_EQ(cache.entry(lane, slot).key, before.entry(from_lane, from_slot).key);
        ASSERT_EQ(cache.entry(lane, slot).value, before.entry(from_lane, from_slot).value);
      };
      for (int32_t i = 0; i < count; ++i) expect_entry(to, i, kFrom, kept[i]);
      for (int32_t slot = 0; slot < 50; ++slot) expect_entry(0, slot, 0, slot);
      for (int32_t slot = to == kFrom ? count : 0; slot < 400; ++slot) expect_entry(kFrom, slot, kFrom, slot);
    }
  }
}

std::vector<int32_t> some_ascending() {
  std::vector<int32_t> kept = {0, 1, 2};  // stay where they are
  for (int32_t slot = 5; slot < 400; slot += 1 + slot % 4) kept.push_back(slot);
  return kept;
}

std::vector<int32_t> shuffled(std::vector<int32_t> kept) {
  std::shuffle(kept.begin(), kept.end(), std::mt19937(4));
  return kept;
}

TEST(GatherTest, Ascending) {
  gather_and_compare(some_ascending(), kFrom);
  gather_and_compare(some_ascending(), kOther);
}

TEST(GatherTest, AnyOrderOfSome) {
  gather_and_compare(shuffled(some_ascending()), kFrom);
  gather_and_compare(shuffled(some_ascending()), kOther);
}

TEST(GatherTest, PermutationOfAll) {
  std::vector<int32_t> all(400);
  std::iota(all.begin(), all.end(), 0);
  gather_and_compare(shuffled(all), kFrom);
  gather_and_compare(shuffled(all), kOther);
  gather_and_compare(all, kFrom);
  gather_and_compare(all, kOther);
  std::rotate(all.begin(), all.begin() + 399, all.end());  // every entry but one moves to a later slot
  gather_and_compare(all, kFrom);
}

}  // namespace
}  // namespace pkv
