// PagePool against a plain set of free pages.
#include "server/cache/page_pool.h"

#include <algorithm>
#include <random>
#include <set>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace pkv {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(PagePool, HandsOutTheLowestFreePages) {
  PagePool pool(200);
  std::vector<int32_t> first;
  ASSERT_TRUE(pool.take(100, first));
  EXPECT_EQ(first.front(), 0);
  EXPECT_EQ(first.back(), 99);
  pool.give_back(std::vector<int32_t>{97, 3, 64});
  std::vector<int32_t> next;
  ASSERT_TRUE(pool.take(5, next));
  EXPECT_THAT(next, ElementsAre(3, 64, 97, 100, 101));
}

TEST(PagePool, AppendsToWhatIsThere) {
  PagePool pool(4);
  std::vector<int32_t> pages{-7};
  ASSERT_TRUE(pool.take(2, pages));
  EXPECT_THAT(pages, ElementsAre(-7, 0, 1));
}

TEST(PagePool, TakesNothingWhereTooFewAreFree) {
  PagePool pool(65);
  std::vector<int32_t> pages;
  ASSERT_TRUE(pool.take(60, pages));
  std::vector<int32_t> none;
  EXPECT_FALSE(pool.take(6, none));
  EXPECT_THAT(none, IsEmpty());
  EXPECT_EQ(pool.free(), 5);
  EXPECT_EQ(pool.high_water(), 60);
  EXPECT_TRUE(pool.take(5, none));
  EXPECT_THAT(none, ElementsAre(60, 61, 62, 63, 64));
  EXPECT_FALSE(pool.take(1, none));
  EXPECT_TRUE(pool.take(0, none));
}

TEST(PagePool, HighWaterIsOnePastTheHighestPageEver) {
  PagePool pool(10);
  std::vector<int32_t> pages;
  ASSERT_TRUE(pool.take(7, pages));
  pool.give_back(pages);
  EXPECT_EQ(pool.high_water(), 7);
  pages.clear();
  ASSERT_TRUE(pool.take(2, pages));
  EXPECT_EQ(pool.high_water(), 7);
}

TEST(PagePoolDeathTest, RefusesPagesThatAreNotTaken) {
  PagePool pool(64);
  std::vector<int32_t> pages;
  ASSERT_TRUE(pool.take(2, pages));
  EXPECT_DEATH(pool.give_back(std::vector<int32_t>{2}), "not taken");
  EXPECT_DEATH(pool.give_back(std::vector<int32_t>{1, 1}), "not taken");
  EXPECT_DEATH(pool.give_back(std::vector<int32_t>{64}), "another pool");
}

TEST(PagePool, AgreesWithASetUnderRandomUse) {
  std::mt19937 random(1);
  for (int32_t total : {1, 63, 64, 65, 128, 333}) {
    PagePool pool(total);
    std::set<int32_t> free_pages;
    for (int32_t page = 0; page < total; ++page) free_pages.insert(page);
    std::vector<int32_t> live;
    for (int round = 0; round < 2000; ++round) {
      const auto count = static_cast<int32_t>(random() % static_cast<uint32_t>(total / 2 + 2));
      if (random() % 2 == 0) {
        std::vector<int32_t> taken;
        ASSERT_EQ(pool.take(count, taken), count <= static_cast<int32_t>(free_pages.size()));
        for (int32_t page : taken) {
          ASSERT_EQ(page, *free_pages.begin());
          free_pages.erase(free_pages.begin());
        }
        live.insert(live.end(), taken.begin(), taken.end());
      } else {
        std::shuffle(live.begin(), live.end(), random);
        const size_t kept = live.size() - std::min(live.size(), static_cast<size_t>(count));
        const std::vector<int32_t> given(live.begin() + static_cast<std::ptrdiff_t>(kept), live.end());
        live.resize(kept);
        pool.give_back(given);
        free_pages.insert(given.begin(), given.end());
      }
      ASSERT_EQ(pool.free(), static_cast<int32_t>(free_pages.size()));
      ASSERT_EQ(pool.live(), static_cast<int32_t>(live.size()));
      ASSERT_EQ(pool.live() + pool.free(), pool.total());
    }
  }
}

}  // namespace
}  // namespace pkv
