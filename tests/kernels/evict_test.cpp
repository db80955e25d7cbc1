// What choosing slots looks at: the entries of lanes that are full, and of others none. A step of many long lanes of
// which few are full costs what those few have.
#include "kernels/cpu/lanes/evict.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <vector>

namespace pkv {
namespace {

constexpr int32_t kEntriesOfPage = 1024;                // 4-byte numbers
constexpr int32_t kEntries = 16 * kEntriesOfPage;       // so many that lanes are divided among threads
constexpr int32_t kPlaces = kEntries + kEntriesOfPage;  // of a lane: its entries, and a page for the new one
constexpr int32_t kLanes = 6;

// Numbers of all lanes, whose pages can be closed.
template <typename T>
class Numbers {
 public:
  Numbers()
      : memory_(
            mmap(nullptr, sizeof(T) * kLanes * kPlaces, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) {
    EXPECT_NE(memory_, MAP_FAILED);
  }
  ~Numbers() { munmap(memory_, sizeof(T) * kLanes * kPlaces); }
  Numbers(const Numbers&) = delete;
  Numbers& operator=(const Numbers&) = delete;

  T* data() { return static_cast<T*>(memory_); }
  T* of(int32_t lane) { return data() + lane * kPlaces; }
  // Whoever reads one of the lane's entries ends here.
  void close(int32_t lane) { ASSERT_EQ(mprotect(of(lane), sizeof(T) * kEntries, PROT_NONE), 0); }

 private:
  void* memory_;
};

TEST(ChooseSlots, LooksAtFullLanesOnly) {
  for (const int32_t threads : {1, 3}) {
    Numbers<float> scores;
    Numbers<int32_t> positions;
    std::vector<Lane> lanes;
    for (int32_t lane = 0; lane < kLanes; ++lane) {
      const bool full = lane % 3 == 1;
      for (int32_t slot = 0; slot < kEntries; ++slot) {
        scores.of(lane)[slot] = slot == 700 + lane ? -1.0f : 1.0f;
        positions.of(lane)[slot] = slot;
      }
      lanes.push_back({.length = full ? kEntries : kEntries + 1,
                       .write_slot = full ? kChosenByEviction : kEntries,
                       .first_score = lane * kPlaces});
      if (full) continue;
      scores.close(lane);
      positions.close(lane);
    }
    const EvictingRow row{.scores = scores.data(), .positions = positions.data(), .position = kEntries};
    ThreadPool pool(threads);
    cpu_choose_slots({.rows = &row,
                      .count = 1,
                      .lanes = lanes.data(),
                      .lanes_per_layer = kLanes / 2,
                      .layers = 2,
                      .kv_heads = kLanes / 2},
                     pool);
    for (int32_t lane = 0; lane < kLanes; ++lane) {
      const int32_t slot = lanes[static_cast<size_t>(lane)].write_slot;
      EXPECT_EQ(slot, lane % 3 == 1 ? 700 + lane : kEntries);
      EXPECT_EQ(positions.of(lane)[slot], kEntries);
    }
  }
}

}  // namespace
}  // namespace pkv
