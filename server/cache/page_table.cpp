// Ranges are taken one behind the other; the cache closes the gaps when the end is reached.
#include "server/cache/page_table.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "kernels/check.h"
#include "kernels/status_macros.h"

namespace pkv {
namespace {

// Changed places that are remembered; what is more goes to the backend at once.
constexpr size_t kMostChanges = size_t{1} << 16;

}  // namespace

absl::StatusOr<PageTable> PageTable::create(Backend& backend, int32_t places) {
  PageTable table(backend, places);
  PKV_ASSIGN_OR_RETURN(table.memory_, backend.allocate_staged(static_cast<size_t>(places) * sizeof(int32_t)));
  table.changed_.reserve(kMostChanges);
  return table;
}

std::optional<int32_t> PageTable::take(int32_t count) {
  PKV_CHECK(count >= 0, "a negative number of places");
  if (count > places_ - end_) return std::nullopt;
  return std::exchange(end_, end_ + count);
}

void PageTable::move(int32_t from, int32_t to, int32_t count) {
  PKV_CHECK(to <= from && to == end_, "ranges move together, in their order");
  if (to != from) {
    std::memmove(host() + to, host() + from, static_cast<size_t>(count) * sizeof(int32_t));
    for (int32_t place = to; place < to + count; ++place) note(place);
  }
  end_ = to + count;
}

void PageTable::set(int32_t place, int32_t page) {
  PKV_CHECK(place >= 0 && place < end_, "a place of nobody");
  host()[place] = page;
  note(place);
}

void PageTable::note(int32_t place) {
  if (changed_.size() == kMostChanges) commit_all();
  changed_.push_back(place);
}

int32_t PageTable::take_edits(PageEdit* edits, int32_t room) {
  if (changed_.size() > static_cast<size_t>(room)) commit_all();
  // A place that changed twice is there twice, with what it holds now.
  const auto count = static_cast<int32_t>(changed_.size());
  for (int32_t i = 0; i < count; ++i)
    edits[i] = {changed_[static_cast<size_t>(i)], at(changed_[static_cast<size_t>(i)])};
  changed_.clear();
  return count;
}

void PageTable::commit_all() {
  const auto [first, last] = std::minmax_element(changed_.begin(), changed_.end());
  const auto begin = static_cast<size_t>(*first), end = static_cast<size_t>(*last) + 1;
  backend_->commit(memory_, begin * sizeof(int32_t), (end - begin) * sizeof(int32_t));
  changed_.clear();
}

}  // namespace pkv
