// Entries of a page the plain way, element after element: what tests compare backends with.
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

#include "kernels/entry_format.h"

namespace pkv {

// The entry at a page's place as numbers.
struct PlainEntry {
  std::vector<float> key, value;  // [head_dim]
};
PlainEntry read_plain(const PageLayout& layout, const std::byte* page, int32_t place);

// Its bits, each element's and scale's zero-extended.
struct EntryBits {
  std::vector<int32_t> key, value;  // [head_dim]
  std::vector<int32_t> key_scales, value_scales;
};
EntryBits read_bits(const PageLayout& layout, const std::byte* page, int32_t place);
void write_bits(const PageLayout& layout, std::byte* page, int32_t place, const EntryBits& bits);

// Random numbers of size 1, or so, as the format can hold them.
EntryBits random_bits(const PageLayout& layout, std::mt19937& rng);

}  // namespace pkv
