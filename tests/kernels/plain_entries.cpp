// See plain_entries.h.
#include "tests/kernels/plain_entries.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "kernels/check.h"
#include "kernels/quant.h"

namespace pkv {
namespace {

int32_t read_word(const std::byte* at, int32_t bits) {
  uint32_t word = 0;
  std::memcpy(&word, at, static_cast<size_t>(bits + 7) / 8);
  return static_cast<int32_t>(word);
}

void write_word(std::byte* at, int32_t word, int32_t bits) {
  std::memcpy(at, &word, static_cast<size_t>(bits + 7) / 8);
}

// Of two numbers in a byte, those at odd dimensions have the high half.
int32_t shift_of(const EntryPart& part, int32_t dimension) {
  return part.element_bits == 4 && dimension % 2 == 1 ? 4 : 0;
}

int32_t read_element(const std::byte* at, const EntryPart& part, int32_t dimension) {
  const int32_t word = read_word(at, part.element_bits);
  return part.element_bits == 4 ? word >> shift_of(part, dimension) & 15 : word;
}

void write_element(std::byte* at, const EntryPart& part, int32_t dimension, int32_t bits) {
  if (part.element_bits != 4) return write_word(at, bits, part.element_bits);
  const int32_t shift = shift_of(part, dimension), others = read_word(at, 8) & ~(15 << shift);
  write_word(at, others | bits << shift, 8);
}

float number_of(int32_t bits, ElementType type) {
  switch (type) {
    case ElementType::kF16:
      return half_to_float(static_cast<uint16_t>(bits));
    case ElementType::kBF16:
      return bfloat16_to_float(static_cast<uint16_t>(bits));
    case ElementType::kI8:
      return static_cast<int8_t>(bits);
    case ElementType::kI4:
      return static_cast<float>(bits < 8 ? bits : bits - 16);
    case ElementType::kF32:
      float value;
      std::memcpy(&value, &bits, sizeof(value));
      return value;
  }
  PKV_CHECK(false, "an element of no known type");
}

int32_t bits_of(float number, ElementType type) {
  if (type == ElementType::kF16) return float_to_half(number);
  if (type == ElementType::kBF16) return float_to_bfloat16(number);
  int32_t bits;
  std::memcpy(&bits, &number, sizeof(bits));
  return bits;
}

int32_t scale_count(const EntryPart& part, int32_t head_dim) {
  return part.scale_bytes == 0 ? 0 : part.scale_of(head_dim - 1) + 1;
}

// Numbers of a group that are mixed at once: the largest power of two that divides it.
size_t block_of(size_t group) { return group & (~group + 1); }

// Row i of a Walsh-Hadamard matrix of 2^n rows has -1 in column k where i and k have an odd number of bits in common.
float hadamard(size_t i, size_t k) { return std::popcount(i & k) % 2 == 0 ? 1.0f : -1.0f; }

// What numbers are that were mixed by groups.
std::vector<float> elements_of(const std::vector<float>& mixed, size_t group) {
  std::vector<float> elements(mixed.size());
  for (size_t first = 0; first < mixed.size(); first += group) {
    const size_t count = std::min(group, mixed.size() - first), block = block_of(count);
    for (size_t i = 0; i < count; ++i) {
      double sum = 0;
      for (size_t k = 0; k < block; ++k) sum += hadamard(i % block, k) * mixed[first + i / block * block + k];
      elements[first + i] = static_cast<float>(sum);
    }
  }
  return elements;
}

std::vector<float> numbers_of(const EntryPart& part, const std::vector<int32_t>& bits,
                              const std::vector<int32_t>& scales) {
  std::vector<float> numbers;
  for (size_t i = 0; i < bits.size(); ++i) {
    numbers.push_back(number_of(bits[i], part.element));
    if (scales.empty()) continue;
    numbers.back() *=
        half_to_float(static_cast<uint16_t>(scales[static_cast<size_t>(part.scale_of(static_cast<int32_t>(i)))]));
  }
  if (scales.empty()) return numbers;
  return elements_of(numbers, part.scale_group == 0 ? numbers.size() : static_cast<size_t>(part.scale_group));
}

void draw_part(const EntryPart& part, int32_t head_dim, std::mt19937& rng, std::vector<int32_t>& bits,
               std::vector<int32_t>& scales) {
  std::normal_distribution<float> normal;
  const bool code = part.scale_bytes > 0;
  for (int32_t i = 0; i < head_dim; ++i) {
    bits.push_back(code ? static_cast<int32_t>(rng() & ((1u << part.element_bits) - 1))
                        : bits_of(normal(rng), part.element));
  }
  for (int32_t i = 0; i < scale_count(part, head_dim); ++i) {
    const int32_t group =
        part.scale_group == 0 ? head_dim : std::min(part.scale_group, head_dim - i * part.scale_group);
    // An element is the sum of so many numbers.
    const float mixed = std::sqrt(static_cast<float>(block_of(static_cast<size_t>(group))));
    const float size = std::ldexp(1.0f + 0.2f * normal(rng), 2 - part.element_bits) / mixed;
    scales.push_back(float_to_half(part.element_bits == 4 && i % 2 == 1 ? -size : size));
  }
}

}  // namespace

EntryBits read_bits(const PageLayout& layout, const std::byte* page, int32_t place) {
  const EntryPart &key = layout.format().key, &value = layout.format().value;
  EntryBits bits;
  for (int32_t i = 0; i < layout.head_dim(); ++i) {
    bits.key.push_back(read_element(page + layout.key_at(place, i), key, i));
    bits.value.push_back(read_element(page + layout.value_at(place, i), value, i));
  }
  for (int32_t i = 0; i < scale_count(key, layout.head_dim()); ++i) {
    bits.key_scales.push_back(read_word(page + layout.key_scale_at(place, i * key.scale_group), 16));
  }
  for (int32_t i = 0; i < scale_count(value, layout.head_dim()); ++i) {
    bits.value_scales.push_back(read_word(page + layout.value_scale_at(place, i * value.scale_group), 16));
  }
  return bits;
}

void write_bits(const PageLayout& layout, std::byte* page, int32_t place, const EntryBits& bits) {
  const EntryPart &key = layout.format().key, &value = layout.format().value;
  for (int32_t i = 0; i < layout.head_dim(); ++i) {
    write_element(page + layout.key_at(place, i), key, i, bits.key[static_cast<size_t>(i)]);
    write_element(page + layout.value_at(place, i), value, i, bits.value[static_cast<size_t>(i)]);
  }
  for (int32_t i = 0; i < scale_count(key, layout.head_dim()); ++i) {
    write_word(page + layout.key_scale_at(place, i * key.scale_group), bits.key_scales[static_cast<size_t>(i)], 16);
  }
  for (int32_t i = 0; i < scale_count(value, layout.head_dim()); ++i) {
    write_word(page + layout.value_scale_at(place, i * value.scale_group), bits.value_scales[static_cast<size_t>(i)],
               16);
  }
}

PlainEntry read_plain(const PageLayout& layout, const std::byte* page, int32_t place) {
  const EntryBits bits = read_bits(layout, page, place);
  return {.key = numbers_of(layout.format().key, bits.key, bits.key_scales),
          .value = numbers_of(layout.format().value, bits.value, bits.value_scales)};
}

EntryBits random_bits(const PageLayout& layout, std::mt19937& rng) {
  EntryBits bits;
  draw_part(layout.format().key, layout.head_dim(), rng, bits.key, bits.key_scales);
  draw_part(layout.format().value, layout.head_dim(), rng, bits.value, bits.value_scales);
  return bits;
}

}  // namespace pkv
