// Repacks the blocks of a GGUF file (quant_blocks.h): a block of each of the panel's rows becomes a byte a weight, then
// those of all rows are interleaved, four or eight inputs of a row at a time. Loops are plain ones that compilers make
// vectors of.
#include "kernels/cpu/linear/panel_packer.h"

#include <algorithm>
#include <cstring>
#include <iterator>

#include "kernels/cpu/linear/scale_layout.h"
#include "kernels/quant_blocks.h"

namespace pkv {
namespace {

template <typename Block>
const Block& block_at(const uint8_t* bytes) {
  return *reinterpret_cast<const Block*>(bytes);
}

template <typename Word>
Word load(const uint8_t* from) {
  Word word;
  std::memcpy(&word, from, sizeof(word));
  return word;
}

template <typename Word>
void store(uint8_t* to, Word word) {
  std::memcpy(to, &word, sizeof(word));
}

// ---- codes: one block to one byte per weight

template <int kCount>
void split_nibbles(const uint8_t* __restrict packed, uint8_t* __restrict out) {
  for (int i = 0; i < kCount; ++i) {
    out[i] = packed[i] & 15;
    out[kCount + i] = packed[i] >> 4;
  }
}

// Bit i of `bits` becomes bit 4 of out[i], for 32 weights.
void add_fifth_bits(const uint8_t* bits, uint8_t* out) {
  for (int i = 0; i < 4; ++i) {
    const uint64_t one_each = bits[i] * 0x0101010101010101u & 0x8040201008040201u;  // byte j: bit j alone
    const uint64_t is_set = (one_each + 0x7f7f7f7f7f7f7f7fu) & 0x8080808080808080u;
    store(out + 8 * i, load<uint64_t>(out + 8 * i) | is_set >> 3);
  }
}

void codes_q4_0(const uint8_t* block, uint8_t* out) { split_nibbles<16>(block_at<BlockQ4_0>(block).nibbles, out); }
void codes_q4_1(const uint8_t* block, uint8_t* out) { split_nibbles<16>(block_at<BlockQ4_1>(block).nibbles, out); }
void codes_q5_0(const uint8_t* block, uint8_t* out) {
  split_nibbles<16>(block_at<BlockQ5_0>(block).nibbles, out);
  add_fifth_bits(block_at<BlockQ5_0>(block).fifth_bits, out);
}
void codes_q5_1(const uint8_t* block, uint8_t* out) {
  split_nibbles<16>(block_at<BlockQ5_1>(block).nibbles, out);
  add_fifth_bits(block_at<BlockQ5_1>(block).fifth_bits, out);
}
void codes_q8_0(const uint8_t* block, uint8_t* out) {
  for (int i = 0; i < kBlockWeights; ++i) out[i] = block[2 + i] ^ 0x80;  // offset by 128
}
void codes_q4_k(const uint8_t* block, uint8_t* out) {
  for (int chunk = 0; chunk < 4; ++chunk) {
    split_nibbles<32>(block_at<BlockQ4_K>(block).nibbles + 32 * chunk, out + 64 * chunk);
  }
}
void codes_q5_k(const uint8_t* block, uint8_t* out) {
  const auto& from = block_at<BlockQ5_K>(block);
  for (int chunk = 0; chunk < 4; ++chunk) {
    uint8_t* to = out + 64 * chunk;
    split_nibbles<32>(from.nibbles + 32 * chunk, to);
    for (int i = 0; i < 32; ++i) {
      to[i] |= ((from.fifth_bits[i] >> 2 * chunk) & 1) << 4;
      to[32 + i] |= ((from.fifth_bits[i] >> (2 * chunk + 1)) & 1) << 4;
    }
  }
}
void codes_q6_k(const uint8_t* block, uint8_t* out) {
  const auto& from = block_at<BlockQ6_K>(block);
  for (int half = 0; half < 2; ++half) {
    uint8_t* to = out + 128 * half;
    split_nibbles<64>(from.low_bits + 64 * half, to);
    const uint8_t* high = from.high_bits + 32 * half;
    for (int i = 0; i < 32; ++i) {
      for (int run = 0; run < 4; ++run) to[32 * run + i] |= ((high[i] >> 2 * run) & 3) << 4;
    }
  }
}

// ---- scales: those of one block to output `output` of the panel

void put_half(uint8_t* part, int32_t output, HalfBytes half) { store(part + 2 * output, half.bits()); }

void scales_half(const uint8_t* block, uint8_t* to, int32_t output) {
  put_half(to + ScaleLayout<ScaleKind::kHalf>::kScale, output, block_at<HalfBytes>(block));
}
void scales_half_min(const uint8_t* block, uint8_t* to, int32_t output) {
  using Layout = ScaleLayout<ScaleKind::kHalfMin>;
  put_half(to + Layout::kScale, output, block_at<HalfBytes>(block));
  put_half(to + Layout::kMin, output, block_at<HalfBytes>(block + 2));
}
void scales_super_min(const uint8_t* block, uint8_t* to, int32_t output) {
  using Layout = ScaleLayout<ScaleKind::kSuperMin>;
  const auto& from = block_at<BlockQ4_K>(block);  // Q5_K begins alike
  put_half(to + Layout::kScale, output, from.scale);
  put_half(to + Layout::kMin, output, from.minimum);
  for (int32_t g = 0; g < Layout::kGroups; ++g) {
    const SubScaleBits bits = sub_scale_bits(from.sub_scales, g);
    to[Layout::kGroupScales + g * kPanelBytes + output] = static_cast<uint8_t>(bits.scale);
    to[Layout::kGroupMins + g * kPanelBytes + output] = static_cast<uint8_t>(bits.minimum);
  }
}
void scales_super_signed(const uint8_t* block, uint8_t* to, int32_t output) {
  using Layout = ScaleLayout<ScaleKind::kSuperSigned>;
  const auto& from = block_at<BlockQ6_K>(block);
  put_half(to + Layout::kScale, output, from.scale);
  for (int32_t g = 0; g < Layout::kGroups; ++g) {
    to[Layout::kGroupScales + g * kPanelBytes + output] = static_cast<uint8_t>(from.sub_scales[g]);
  }
}

constexpr PackFormat kFormats[] = {
    {WeightType::kF32, CodeKind::kF32, ScaleKind::kNone, 0, 0, nullptr, nullptr},
    {WeightType::kF16, CodeKind::kF16, ScaleKind::kNone, 0, 0, nullptr, nullptr},
    {WeightType::kBF16, CodeKind::kBF16, ScaleKind::kNone, 0, 0, nullptr, nullptr},
    {WeightType::kQ4_0, CodeKind::kNibble, ScaleKind::kHalf, 32, 8, codes_q4_0, scales_half},
    {WeightType::kQ4_1, CodeKind::kNibble, ScaleKind::kHalfMin, 32, 0, codes_q4_1, scales_half_min},
    {WeightType::kQ5_0, CodeKind::kByte, ScaleKind::kHalf, 32, 16, codes_q5_0, scales_half},
    {WeightType::kQ5_1, CodeKind::kByte, ScaleKind::kHalfMin, 32, 0, codes_q5_1, scales_half_min},
    {WeightType::kQ8_0, CodeKind::kByte, ScaleKind::kHalf, 32, 128, codes_q8_0, scales_half},
    {WeightType::kQ4_K, CodeKind::kNibble, ScaleKind::kSuperMin, 32, 0, codes_q4_k, scales_super_min},
    {WeightType::kQ5_K, CodeKind::kByte, ScaleKind::kSuperMin, 32, 0, codes_q5_k, scales_super_min},
    {WeightType::kQ6_K, CodeKind::kByte, ScaleKind::kSuperSigned, 16, 32, codes_q6_k, scales_super_signed},
};

// Of a panel, for one block of the format.
int32_t block_scale_bytes(ScaleKind kind) {
  switch (kind) {
    case ScaleKind::kNone:
      break;
    case ScaleKind::kHalf:
      return ScaleLayout<ScaleKind::kHalf>::kBytes;
    case ScaleKind::kHalfMin:
      return ScaleLayout<ScaleKind::kHalfMin>::kBytes;
    case ScaleKind::kSuperMin:
      return ScaleLayout<ScaleKind::kSuperMin>::kBytes;
    case ScaleKind::kSuperSigned:
      return ScaleLayout<ScaleKind::kSuperSigned>::kBytes;
  }
  return 0;
}

// ---- panels

// Codes of a block of each output, [kPanelOutputs][kSuperBlockWeights], to their places in the panel.
using BlockCodes = uint8_t[kPanelOutputs][kSuperBlockWeights];

void interleave_nibbles(const BlockCodes& codes, int32_t count, uint8_t* out) {
  for (int32_t k = 0; k < count; k += 8) {
    for (int32_t o = 0; o < kPanelOutputs; ++o, out += 4) {
      store(out, load<uint32_t>(codes[o] + k) | load<uint32_t>(codes[o] + k + 4) << 4);
    }
  }
}

void interleave_bytes(const BlockCodes& codes, int32_t count, uint8_t* out) {
  for (int32_t k = 0; k < count; k += 4) {
    for (int32_t o = 0; o < kPanelOutputs; ++o, out += 4) store(out, load<uint32_t>(codes[o] + k));
  }
}

template <typename Element>
void interleave_floats(const uint8_t* rows, int32_t outputs, int64_t cols, uint8_t* out) {
  constexpr int64_t kBytes = sizeof(Element);
  for (int64_t k = 0; k < cols; ++k) {
    for (int32_t o = 0; o < outputs; ++o) {
      store(out + (k * kPanelOutputs + o) * kBytes, load<Element>(rows + (o * cols + k) * kBytes));
    }
  }
}

}  // namespace

const PackFormat& pack_format(WeightType type) {
  return *std::find_if(std::begin(kFormats), std::end(kFormats), [&](const PackFormat& f) { return f.type == type; });
}

int64_t panel_code_bytes(const PackFormat& format, int64_t cols) {
  const int64_t weights = cols * kPanelOutputs;
  switch (format.code_kind) {
    case CodeKind::kNibble:
      return weights / 2;
    case CodeKind::kByte:
      return weights;
    case CodeKind::kF16:
    case CodeKind::kBF16:
      return 2 * weights;
    case CodeKind::kF32:
      return 4 * weights;
  }
  return 0;
}

int64_t panel_scale_bytes(const PackFormat& format, int64_t cols) {
  return cols / quant_traits(format.type).block_size * block_scale_bytes(format.scale_kind);
}

void pack_panel(const PackFormat& format, const uint8_t* rows, int32_t outputs, int64_t cols, uint8_t* codes,
                uint8_t* scales) {
  if (format.code_kind == CodeKind::kF32) return interleave_floats<uint32_t>(rows, outputs, cols, codes);
  if (format.scale_kind == ScaleKind::kNone) return interleave_floats<uint16_t>(rows, outputs, cols, codes);
  const QuantTraits& traits = quant_traits(format.type);
  const int64_t blocks = cols / traits.block_size;
  const int64_t code_bytes = panel_code_bytes(format, traits.block_size);
  const int64_t scale_bytes = block_scale_bytes(format.scale_kind);
  alignas(64) BlockCodes block_codes = {};
  for (int64_t block = 0; block < blocks; ++block) {
    for (int32_t o = 0; o < outputs; ++o) {
      const uint8_t* from = rows + (o * blocks + block) * traits.block_bytes;
      format.codes(from, block_codes[o]);
      format.scales(from, scales + block * scale_bytes, o);
    }
    uint8_t* to = codes + block * code_bytes;
    if (format.code_kind == CodeKind::kByte) {
      interleave_bytes(block_codes, traits.block_size, to);
    } else {
      interleave_nibbles(block_codes, traits.block_size, to);
    }
  }
}

}  // namespace pkv
