// The memory of packed weights, and their way back to float32.
#include "kernels/cpu/linear/packed_weight.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/linear/panel_packer.h"
#include "kernels/cpu/linear/scale_layout.h"
#include "kernels/cpu/parallel.h"

namespace pkv {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kArenaBlock = size_t{32} << 20;

uint16_t load_u16(const uint8_t* from) {
  uint16_t value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

constexpr int64_t align_up(int64_t value, int64_t to) { return (value + to - 1) / to * to; }

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

// Where input k of output `output` lies in a panel of nibbles: the byte, and whether in its high half.
int64_t nibble_byte(int64_t k, int32_t output) { return k / 8 * 64 + output * 4 + k % 4; }
bool nibble_is_high(int64_t k) { return k % 8 >= 4; }
int64_t byte_index(int64_t k, int32_t output) { return k / 4 * 64 + output * 4 + k % 4; }

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
  const PackFormat& format = pack_format(source.type);
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
                     .cols = source.cols,
                     .tolerant = source.tolerant};
  view.panel_code_bytes = panel_code_bytes(format, source.cols);
  view.panel_scale_bytes = panel_scale_bytes(format, source.cols);
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
  parallel_for(pool, panels, kPanelOutputs * source.cols, [&](int64_t panel) {
    const int64_t first = panel * kPanelOutputs;
    pack_panel(format, static_cast<const uint8_t*>(source.data) + first * row_bytes,
               static_cast<int32_t>(std::min<int64_t>(kPanelOutputs, source.rows - first)), source.cols,
               codes + panel * view.panel_code_bytes, scales + panel * view.panel_scale_bytes);
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
