// Repacks the blocks of a GGUF file (layouts of ggml's block_q*) into panels of 16 outputs.
#include "kernels/cpu/linear/packed_weight.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/linear/scale_layout.h"
#include "kernels/cpu/parallel.h"

namespace pkv {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kArenaBlock = size_t{32} << 20;
constexpr int64_t kMaxBlock = 256;  // weights in the largest block of any format

uint16_t load_u16(const uint8_t* from) {
  uint16_t value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

// ---- codes: one block to one byte per weight

void split_nibbles(const uint8_t* packed, int32_t count, uint8_t* out) {
  for (int32_t i = 0; i < count; ++i) {
    out[i] = packed[i] & 15;
    out[count + i] = packed[i] >> 4;
  }
}

void add_fifth_bits(const uint8_t* bits, uint8_t* out) {
  for (int32_t i = 0; i < 32; ++i) out[i] |= ((bits[i / 8] >> (i % 8)) & 1) << 4;
}

void codes_q4_0(const uint8_t* block, uint8_t* out) { split_nibbles(block + 2, 16, out); }
void codes_q4_1(const uint8_t* block, uint8_t* out) { split_nibbles(block + 4, 16, out); }
void codes_q5_0(const uint8_t* block, uint8_t* out) {
  split_nibbles(block + 6, 16, out);
  add_fifth_bits(block + 2, out);
}
void codes_q5_1(const uint8_t* block, uint8_t* out) {
  split_nibbles(block + 8, 16, out);
  add_fifth_bits(block + 4, out);
}
void codes_q8_0(const uint8_t* block, uint8_t* out) {
  for (int32_t i = 0; i < 32; ++i) out[i] = block[2 + i] ^ 0x80;  // offset by 128
}
void codes_q4_k(const uint8_t* block, uint8_t* out) {
  for (int32_t chunk = 0; chunk < 4; ++chunk) split_nibbles(block + 16 + 32 * chunk, 32, out + 64 * chunk);
}
void codes_q5_k(const uint8_t* block, uint8_t* out) {
  const uint8_t* high = block + 16;
  for (int32_t chunk = 0; chunk < 4; ++chunk) {
    split_nibbles(block + 48 + 32 * chunk, 32, out + 64 * chunk);
    for (int32_t i = 0; i < 64; ++i) {
      out[64 * chunk + i] |= ((high[i % 32] >> (2 * chunk + i / 32)) & 1) << 4;
    }
  }
}
void codes_q6_k(const uint8_t* block, uint8_t* out) {
  for (int32_t half = 0; half < 2; ++half) {
    const uint8_t* low = block + 64 * half;
    const uint8_t* high = block + 128 + 32 * half;
    for (int32_t i = 0; i < 128; ++i) {
      const int32_t nibble = (low[i % 64] >> (4 * (i / 64))) & 15;
      out[128 * half + i] = static_cast<uint8_t>(nibble | (((high[i % 32] >> (2 * (i / 32))) & 3) << 4));
    }
  }
}

// ---- scales: those of one block to output `output` of the panel

void put_u16(uint8_t* to, int32_t index, const uint8_t* from) { std::memcpy(to + 2 * index, from, 2); }

void scales_half(const uint8_t* block, uint8_t* to, int32_t output) {
  put_u16(to + ScaleLayout<ScaleKind::kHalf>::kScale, output, block);
}
void scales_half_min(const uint8_t* block, uint8_t* to, int32_t output) {
  using Layout = ScaleLayout<ScaleKind::kHalfMin>;
  put_u16(to + Layout::kScale, output, block);
  put_u16(to + Layout::kMin, output, block + 2);
}
void scales_super_min(const uint8_t* block, uint8_t* to, int32_t output) {
  using Layout = ScaleLayout<ScaleKind::kSuperMin>;
  put_u16(to + Layout::kScale, output, block);
  put_u16(to + Layout::kMin, output, block + 2);
  const uint8_t* packed = block + 4;  // 8 scales and 8 mins of 6 bits in 12 bytes
  for (int32_t g = 0; g < Layout::kGroups; ++g) {
    uint8_t scale = packed[g] & 63;
    uint8_t min = packed[g + 4] & 63;
    if (g >= 4) {
      scale = (packed[g + 4] & 15) | ((packed[g - 4] >> 6) << 4);
      min = (packed[g + 4] >> 4) | ((packed[g] >> 6) << 4);
    }
    to[Layout::kGroupScales + g * kPanelBytes + output] = scale;
    to[Layout::kGroupMins + g * kPanelBytes + output] = min;
  }
}
void scales_super_signed(const uint8_t* block, uint8_t* to, int32_t output) {
  using Layout = ScaleLayout<ScaleKind::kSuperSigned>;
  put_u16(to + Layout::kScale, output, block + 208);
  for (int32_t g = 0; g < Layout::kGroups; ++g) to[Layout::kGroupScales + g * kPanelBytes + output] = block[192 + g];
}

// ---- formats

struct PackFormat {
  WeightType type;
  CodeKind code_kind;
  ScaleKind scale_kind;
  int32_t group;
  int32_t zero_point;
  void (*codes)(const uint8_t* block, uint8_t* out);
  void (*scales)(const uint8_t* block, uint8_t* to, int32_t output);
};

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

const PackFormat& format_of(WeightType type) {
  return *std::find_if(std::begin(kFormats), std::end(kFormats), [&](const PackFormat& f) { return f.type == type; });
}

// Of a panel, for one block of the format.
int32_t scale_bytes(ScaleKind kind) {
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

size_t code_bytes(CodeKind kind, int64_t weights) {
  switch (kind) {
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

constexpr int64_t align_up(int64_t value, int64_t to) { return (value + to - 1) / to * to; }

// Where input k of output `output` lies in a panel of nibbles: the byte, and whether in its high half.
int64_t nibble_byte(int64_t k, int32_t output) { return k / 8 * 64 + output * 4 + k % 4; }
bool nibble_is_high(int64_t k) { return k % 8 >= 4; }
int64_t byte_index(int64_t k, int32_t output) { return k / 4 * 64 + output * 4 + k % 4; }

void pack_block_codes(CodeKind kind, const uint8_t* codes, int64_t k0, int64_t count, uint8_t* panel, int32_t output) {
  for (int64_t i = 0; i < count; ++i) {
    const int64_t k = k0 + i;
    if (kind == CodeKind::kByte) {
      panel[byte_index(k, output)] = codes[i];
    } else {
      panel[nibble_byte(k, output)] |= nibble_is_high(k) ? codes[i] << 4 : codes[i];
    }
  }
}

template <typename Element>
void pack_floats(const uint8_t* row, int64_t cols, uint8_t* panel, int32_t output) {
  for (int64_t k = 0; k < cols; ++k) {
    std::memcpy(panel + (k * kPanelOutputs + output) * sizeof(Element), row + k * sizeof(Element), sizeof(Element));
  }
}

void pack_row(const PackFormat& format, const uint8_t* row, int64_t cols, uint8_t* codes, uint8_t* scales,
              int32_t output) {
  if (format.code_kind == CodeKind::kF32) return pack_floats<float>(row, cols, codes, output);
  if (format.scale_kind == ScaleKind::kNone) return pack_floats<uint16_t>(row, cols, codes, output);
  const QuantTraits& traits = quant_traits(format.type);
  uint8_t block_codes[kMaxBlock];
  for (int64_t block = 0; block < cols / traits.block_size; ++block) {
    const uint8_t* from = row + block * traits.block_bytes;
    format.codes(from, block_codes);
    pack_block_codes(format.code_kind, block_codes, block * traits.block_size, traits.block_size, codes, output);
    format.scales(from, scales + block * scale_bytes(format.scale_kind), output);
  }
}

struct GroupParameters {
  float scale;
  float min;
};

GroupParameters group_parameters(const PackedView& weight, const uint8_t* scales, int64_t group, int32_t output) {
  const auto half = [](const uint8_t* base, int32_t index) { return half_to_float(load_u16(base + 2 * index)); };
  const auto zero_point = static_cast<float>(weight.zero_point);
  switch (weight.scale_kind) {
    case ScaleKind::kNone:
      break;
    case ScaleKind::kHalf: {
      const float scale = half(scales + group * ScaleLayout<ScaleKind::kHalf>::kBytes, output);
      return {scale, -zero_point * scale};
    }
    case ScaleKind::kHalfMin: {
      using Layout = ScaleLayout<ScaleKind::kHalfMin>;
      const uint8_t* block = scales + group * Layout::kBytes;
      return {half(block + Layout::kScale, output), half(block + Layout::kMin, output)};
    }
    case ScaleKind::kSuperMin: {
      using Layout = ScaleLayout<ScaleKind::kSuperMin>;
      const uint8_t* block = scales + group / Layout::kGroups * Layout::kBytes;
      const uint8_t* bytes = block + group % Layout::kGroups * kPanelBytes + output;
      return {half(block + Layout::kScale, output) * bytes[Layout::kGroupScales],
              -half(block + Layout::kMin, output) * bytes[Layout::kGroupMins]};
    }
    case ScaleKind::kSuperSigned: {
      using Layout = ScaleLayout<ScaleKind::kSuperSigned>;
      const uint8_t* block = scales + group / Layout::kGroups * Layout::kBytes;
      const uint8_t* bytes = block + group % Layout::kGroups * kPanelBytes + output;
      const float scale = half(block + Layout::kScale, output) * static_cast<int8_t>(bytes[Layout::kGroupScales]);
      return {scale, -zero_point * scale};
    }
  }
  return {1, 0};
}

int32_t load_code(CodeKind kind, const uint8_t* panel, int64_t k, int32_t output) {
  if (kind == CodeKind::kByte) return panel[byte_index(k, output)];
  const uint8_t byte = panel[nibble_byte(k, output)];
  return nibble_is_high(k) ? byte >> 4 : byte & 15;
}

float load_float(CodeKind kind, const uint8_t* panel, int64_t index) {
  if (kind == CodeKind::kF16) return half_to_float(load_u16(panel + 2 * index));
  if (kind == CodeKind::kBF16) return bfloat16_to_float(load_u16(panel + 2 * index));
  float value;
  std::memcpy(&value, panel + 4 * index, sizeof(value));
  return value;
}

}  // namespace

std::shared_ptr<uint8_t> WeightArena::allocate(size_t bytes) {
  bytes = align_up(static_cast<int64_t>(bytes), 64);
  if (used_ + bytes > size_) {
    const size_t size = align_up(static_cast<int64_t>(std::max(bytes, kArenaBlock)), kHugePage);
    // Mapped with a huge page to spare, so that the block can start at a huge page's boundary.
    void* mapped =
        mmap(nullptr, size + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED) return nullptr;
    std::shared_ptr<void> mapping(mapped, [size](void* address) { munmap(address, size + kHugePage); });
    auto* start = reinterpret_cast<uint8_t*>(align_up(reinterpret_cast<int64_t>(mapped), kHugePage));
    madvise(start, size, MADV_HUGEPAGE);  // refusal costs speed only
    block_ = std::shared_ptr<uint8_t>(std::move(mapping), start);
    size_ = size;
    used_ = 0;
  }
  std::shared_ptr<uint8_t> piece(block_, block_.get() + used_);
  used_ += bytes;
  return piece;
}

PackedWeight::PackedWeight(const PackedView& view, size_t bytes, std::shared_ptr<uint8_t> storage)
    : Weight(view.rows, view.cols), view_(view), bytes_(bytes), storage_(std::move(storage)) {}

absl::StatusOr<std::unique_ptr<PackedWeight>> pack_weight(const WeightSource& source, WeightArena& arena,
                                                          ThreadPool& pool) {
  const QuantTraits& traits = quant_traits(source.type);
  const PackFormat& format = format_of(source.type);
  if (source.cols % traits.block_size != 0) {
    return absl::InvalidArgumentError(absl::StrCat("a weight matrix with ", source.cols, " columns cannot be of type ",
                                                   absl::string_view(traits.name.data(), traits.name.size()),
                                                   " (blocks of ", traits.block_size, ")"));
  }
  const int64_t panels = (source.rows + kPanelOutputs - 1) / kPanelOutputs;
  PackedView view = {.code_kind = format.code_kind,
                     .scale_kind = format.scale_kind,
                     .group = format.group,
                     .zero_point = format.zero_point,
                     .rows = source.rows,
                     .cols = source.cols};
  view.panel_code_bytes = code_bytes(format.code_kind, source.cols * kPanelOutputs);
  view.panel_scale_bytes = source.cols / traits.block_size * scale_bytes(format.scale_kind);
  const size_t scales_at = align_up(panels * view.panel_code_bytes, 64);
  const size_t bytes = scales_at + panels * view.panel_scale_bytes;
  std::shared_ptr<uint8_t> storage = arena.allocate(bytes);
  if (storage == nullptr)
    return absl::ResourceExhaustedError(absl::StrCat("no memory for ", bytes, " bytes of weights"));
  uint8_t* codes = storage.get();
  uint8_t* scales = storage.get() + scales_at;
  view.codes = codes;
  view.scales = scales;
  const int64_t row_bytes = source.cols / traits.block_size * traits.block_bytes;
  parallel_for(pool, panels, 8 * kPanelOutputs * source.cols, [&](int64_t panel) {
    const auto outputs = static_cast<int32_t>(std::min<int64_t>(kPanelOutputs, source.rows - panel * kPanelOutputs));
    for (int32_t output = 0; output < outputs; ++output) {
      const auto* row = static_cast<const uint8_t*>(source.data) + (panel * kPanelOutputs + output) * row_bytes;
      pack_row(format, row, source.cols, codes + panel * view.panel_code_bytes, scales + panel * view.panel_scale_bytes,
               output);
    }
  });
  return std::make_unique<PackedWeight>(view, bytes, std::move(storage));
}

void unpack_row(const PackedView& weight, int64_t row, float* out) {
  const int64_t panel = row / kPanelOutputs;
  const auto output = static_cast<int32_t>(row % kPanelOutputs);
  const uint8_t* codes = weight.codes + panel * weight.panel_code_bytes;
  if (weight.scale_kind == ScaleKind::kNone) {
    for (int64_t k = 0; k < weight.cols; ++k) out[k] = load_float(weight.code_kind, codes, k * kPanelOutputs + output);
    return;
  }
  const uint8_t* scales = weight.scales + panel * weight.panel_scale_bytes;
  for (int64_t group = 0; group < weight.cols / weight.group; ++group) {
    const auto [scale, min] = group_parameters(weight, scales, group, output);
    for (int64_t k = group * weight.group; k < (group + 1) * weight.group; ++k) {
      const int32_t code = load_code(weight.code_kind, codes, k, output);
      out[k] = static_cast<float>(static_cast<double>(scale) * code + min);  // exact product: one rounding
    }
  }
}

}  // namespace pkv
