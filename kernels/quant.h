// The weight formats of GGUF files: one table row each. Block layouts are those of the GGUF specification (ggml).
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace pkv {

enum class WeightType : uint8_t { kF32, kF16, kBF16, kQ4_0, kQ4_1, kQ5_0, kQ5_1, kQ8_0, kQ4_K, kQ5_K, kQ6_K };

struct QuantTraits {
  WeightType type;
  std::string_view name;  // as users know it: "Q4_1"
  uint32_t ggml_id;       // type number in a GGUF file
  int32_t block_size;     // weights per block
  int32_t block_bytes;
  // Decodes `count` weights (a multiple of block_size) starting at a block boundary.
  void (*decode)(const void* blocks, float* out, int64_t count);
};

std::span<const QuantTraits> quant_table();
const QuantTraits& quant_traits(WeightType type);
const QuantTraits* find_quant_by_ggml_id(uint32_t ggml_id);  // nullptr: not a format we read
std::string_view ggml_type_name(uint32_t ggml_id);           // also of formats we do not read; "unknown" otherwise

float half_to_float(uint16_t half);       // IEEE binary16, exact
uint16_t float_to_half(float value);      // round to nearest even
float bfloat16_to_float(uint16_t bits);   // exact
uint16_t float_to_bfloat16(float value);  // round to nearest even

}  // namespace pkv
