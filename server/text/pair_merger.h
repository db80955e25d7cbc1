// The merging both kinds of BPE share: of all neighbouring pairs the best one becomes one symbol, the leftmost of
// equals, until none can be merged. A linked list and a heap: n log n however long the text is.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

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

  // Merges `symbols` in place, in text order. `find(left, right)` gives the optional<Merge> of two neighbours. Buffers
  // are reused from call to call; an object serves one thread.
  template <typename Find>
  void run(std::vector<Symbol>& symbols, const Find& find) {
    const auto count = static_cast<int32_t>(symbols.size());
    links_.resize(symbols.size());
    for (int32_t i = 0; i < count; ++i) links_[i] = {i - 1, i + 1 < count ? i + 1 : -1};
    heap_.clear();
    for (int32_t i = 0; i + 1 < count; ++i) offer(symbols, i, i + 1, find);
    std::make_heap(heap_.begin(), heap_.end());
    while (!heap_.empty()) {
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
      if (previous >= 0 && offer(symbols, previous, best.left, find)) std::push_heap(heap_.begin(), heap_.end());
      if (next >= 0 && offer(symbols, best.left, next, find)) std::push_heap(heap_.begin(), heap_.end());
    }
    std::erase_if(symbols, [](const Symbol& symbol) { return symbol.bytes == 0; });
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

  // Appends the pair to heap_, if it can be merged; the caller restores the heap's order.
  template <typename Find>
  bool offer(const std::vector<Symbol>& symbols, int32_t left, int32_t right, const Find& find) {
    const std::optional<Merge> merge = find(symbols[left], symbols[right]);
    if (merge.has_value()) heap_.push_back({merge->key, left, symbols[left].bytes + symbols[right].bytes, merge->id});
    return merge.has_value();
  }

  std::vector<Links> links_;
  std::vector<Candidate> heap_;
};

}  // namespace pkv
