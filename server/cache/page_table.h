// The page tables of all lanes: one array of page ids in backend memory with its mirror on the host. A sequence has one
// range of it, so a lane's table never moves while steps refer to it; what changes is told to the backend with the next
// commit, entry by entry.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/backend.h"

namespace pkv {

class PageTable {
 public:
  // Of `places` page ids, which cost no memory until they are used. RESOURCE_EXHAUSTED where the address space cannot
  // be had. `backend` must outlive this.
  static absl::StatusOr<PageTable> create(Backend& backend, int32_t places);

  int32_t places() const { return places_; }
  int32_t* device() const { return reinterpret_cast<int32_t*>(memory_.device()); }  // KvView::page_ids

  // The first of `count` places behind everything that was ever taken; nothing where there are not so many.
  std::optional<int32_t> take(int32_t count);
  // Closes gaps: from here on places are taken from `first`. The caller moves what lies beyond by move(), ascending.
  void restart(int32_t first) { end_ = first; }
  // [from, from + count) becomes [to, to + count), to <= from.
  void move(int32_t from, int32_t to, int32_t count);

  int32_t at(int32_t place) const { return host()[place]; }
  std::span<const int32_t> range(int32_t first, int32_t count) const {
    return {host() + first, static_cast<size_t>(count)};
  }
  void set(int32_t place, int32_t page);

  // What changed since the last commit, at most `room` entries of it, are written to `edits`; the caller brings them to
  // the backend (Backend::set_page_ids). Where they are more, the array itself is committed and none are left.
  int32_t take_edits(PageEdit* edits, int32_t room);

 private:
  PageTable(Backend& backend, int32_t places) : backend_(&backend), places_(places) {}
  int32_t* host() const { return reinterpret_cast<int32_t*>(memory_.host()); }
  void note(int32_t changed_place);
  void commit_all();

  Backend* backend_;
  int32_t places_;
  int32_t end_ = 0;  // of what was taken
  Staged memory_;
  std::vector<int32_t> changed_;  // places
};

}  // namespace pkv
