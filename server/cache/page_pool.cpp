// PagePool: one bit per page, set while the page is free, and a hint below which no page is free. Taking walks words of
// 64 pages upwards from the hint, so its cost is the pages taken plus one word read per 64 pages in use.
#include "server/cache/page_pool.h"

#include <algorithm>
#include <bit>

#include "kernels/check.h"

namespace pkv {
namespace {

constexpr int32_t kWordPages = 64;

}  // namespace

PagePool::PagePool(int32_t pages) : total_(pages), free_(pages) {
  PKV_CHECK(pages >= 0, "a pool has no negative number of pages");
  const auto whole_words = static_cast<size_t>(pages / kWordPages);
  free_bits_.assign(whole_words, ~uint64_t{0});
  if (pages % kWordPages != 0) free_bits_.push_back((uint64_t{1} << (pages % kWordPages)) - 1);
}

bool PagePool::take(int32_t count, std::vector<int32_t>& out) {
  PKV_CHECK(count >= 0, "a negative number of pages");
  if (count > free_) return false;
  free_ -= count;
  while (count > 0) {
    uint64_t& word = free_bits_[first_word_];
    if (word == 0) {
      ++first_word_;
      continue;
    }
    const auto page = static_cast<int32_t>(first_word_) * kWordPages + std::countr_zero(word);
    word &= word - 1;  // clears the lowest set bit
    out.push_back(page);
    high_water_ = std::max(high_water_, page + 1);
    --count;
  }
  return true;
}

void PagePool::give_back(std::span<const int32_t> pages) {
  for (int32_t page : pages) {
    PKV_CHECK(page >= 0 && page < total_, "a page of another pool");
    const auto word = static_cast<size_t>(page / kWordPages);
    const uint64_t bit = uint64_t{1} << (page % kWordPages);
    PKV_CHECK((free_bits_[word] & bit) == 0, "a page is given back that is not taken");
    free_bits_[word] |= bit;
    first_word_ = std::min(first_word_, word);
  }
  free_ += static_cast<int32_t>(pages.size());
}

}  // namespace pkv
