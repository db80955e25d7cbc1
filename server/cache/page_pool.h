// Hands out and takes back page ids in bulk, always the lowest free ones, so that memory that was never needed is never
// touched. Never touches bytes. Not thread-safe: owned by the engine thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace pkv {

class PagePool {
 public:
  explicit PagePool(int32_t pages);

  // Appends the `count` lowest free page ids, ascending, to `out`. False, and nothing taken, where fewer are free.
  [[nodiscard]] bool take(int32_t count, std::vector<int32_t>& out);
  // Gives pages back. A page that is not taken is a bug (aborts).
  void give_back(std::span<const int32_t> pages);

  int32_t total() const { return total_; }
  int32_t free() const { return free_; }
  int32_t live() const { return total_ - free_; }
  int32_t high_water() const { return high_water_; }  // one past the highest page ever handed out

 private:
  std::vector<uint64_t> free_bits_;
  size_t first_word_ = 0;  // no free page lies in a word before this one
  int32_t total_;
  int32_t free_;
  int32_t high_water_ = 0;
};

}  // namespace pkv
