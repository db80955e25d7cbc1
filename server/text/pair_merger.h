// The merging both kinds of BPE share: of all neighbouring pairs the best one becomes one symbol, the leftmost of
// equals, until none can be merged. A linked list and a heap: n log n however long the text is.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <stop_token>
#include <vector>

#include "absl/status/status.h"
#include "server/text/cancelled.h"
#include "server/text/tokenizer.h"

namespace pkv {

struct Symbol {
  uint32_t begin = 0;  // in the text
  uint32_t bytes = 0;  // 0: merged into its left neighbour
  TokenId id = 0;      // -1: no token
};

// Key: less is better (a merge's rank, or a negated score).
template <typename Key>
class PairMerger {
 public:
  struct Merge {
    Key key;
    TokenId id;
  };

  // Merges `symbols` in place, in text order. `find(left, right)` gives the optional<Merge> of two neighbours.
  // CANCELLED, with some of them merged, before the next is asked for once `stop` was requested. Buffers are reused
  // from call to call; an object serves one thread.
  template <typename Find>
  absl::Status run(std::vector<Symbol>& symbols, const Find& find, const std::stop_token& stop) {
    const auto count = static_cast<int32_t>(symbols.size());
    links_.resize(symbols.size());
    heap_.clear();
    for (int32_t i = 0; i < count; ++i) {
      if (stop.stop_requested()) return cancelled_by_caller();
      links_[i] = {i - 1, i + 1 < count ? i + 1 : -1};
      if (i + 1 < count) offer(symbols, i, i + 1, find);
    }
    while (!heap_.empty()) {
      if (stop.stop_requested()) return cancelled_by_caller();
      std::pop_heap(heap_.begin(), heap_.end());
      const Candidate best = heap_.back();
      heap_.pop_back();
      Symbol& left = symbols[best.left];
      const int32_t right_index = links_[best.left].next;
      // Outdated: one of the two has been merged since. Symbols only grow, so the sum of the lengths tells.
      if (left.bytes == 0 || right_index < 0 || left.bytes + symbols[right_index].bytes != best.bytes) continue;
      left.bytes = best.bytes;
      left.id = best.id;
      symbols[right_index].bytes = 0;
      const int32_t next = links_[right_index].next;
      links_[best.left].next = next;
      if (next >= 0) links_[next].previous = best.left;
      const int32_t previous = links_[best.left].previous;
      if (previous >= 0) offer(symbols, previous, best.left, find);
      if (next >= 0) offer(symbols, best.left, next, find);
    }
    std::erase_if(symbols, [](const Symbol& symbol) { return symbol.bytes == 0; });
    return absl::OkStatus();
  }

 private:
  struct Links {
    int32_t previous, next;
  };
  struct Candidate {
    Key key;
    int32_t left;
    uint32_t bytes;  // of both
    TokenId id;
    bool operator<(const Candidate& other) const {  // the heap has the greatest on top
      return key != other.key ? other.key < key : other.left < left;
    }
  };

  // Puts the pair on the heap if it can be merged.
  template <typename Find>
  void offer(const std::vector<Symbol>& symbols, int32_t left, int32_t right, const Find& find) {
    const std::optional<Merge> merge = find(symbols[left], symbols[right]);
    if (!merge.has_value()) return;
    heap_.push_back({merge->key, left, symbols[left].bytes + symbols[right].bytes, merge->id});
    std::push_heap(heap_.begin(), heap_.end());
  }

  std::vector<Links> links_;
  std::vector<Candidate> heap_;
};

}  // namespace pkv
