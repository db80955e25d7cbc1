// A radix sort of keys whose order is that of the ranks, from the lowest digit on: equals stay in the order of their
// ids.
#include "server/engine/row_ranks.h"

#include <array>
#include <bit>
#include <limits>

namespace pkv {
namespace {

constexpr int kDigits = 3, kDigitBits = 11;
constexpr uint32_t kDigitMask = (1u << kDigitBits) - 1;
using Counts = std::array<uint32_t, kDigitMask + 1>;

// The smaller, the larger the logit.
uint32_t key_of(float logit) {
  const auto bits = std::bit_cast<uint32_t>(logit + 0.0f);  // -0 becomes 0
  return (bits & 0x80000000u) != 0 ? bits : ~(bits | 0x80000000u);
}

uint32_t digit_of(uint64_t entry, int digit) {
  return static_cast<uint32_t>(entry >> (32 + digit * kDigitBits)) & kDigitMask;
}

}  // namespace

std::span<const uint64_t> rank_row(std::span<const float> logits, RowScratch& scratch) {
  std::vector<uint64_t>&from = scratch.ranked, &to = scratch.other;
  from.clear();
  std::array<Counts, kDigits> counts{};
  for (size_t id = 0; id < logits.size(); ++id) {
    if (!(logits[id] > -std::numeric_limits<float>::infinity())) continue;
    from.push_back(uint64_t{key_of(logits[id])} << 32 | id);
    for (int digit = 0; digit < kDigits; ++digit) ++counts[static_cast<size_t>(digit)][digit_of(from.back(), digit)];
  }
  to.resize(from.size());
  for (int digit = 0; digit < kDigits; ++digit) {
    Counts& places = counts[static_cast<size_t>(digit)];
    uint32_t next = 0;
    for (uint32_t& place : places) {
      const uint32_t count = place;
      place = next;
      next += count;
    }
    for (const uint64_t entry : from) to[places[digit_of(entry, digit)]++] = entry;
    from.swap(to);
  }
  return from;
}

}  // namespace pkv
