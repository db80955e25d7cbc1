// From the rows of a weight matrix as a GGUF file has them to one panel of the packed layout (kernel_table.h).
#pragma once

#include <cstdint>

#include "kernels/cpu/kernel_table.h"
#include "kernels/quant.h"

namespace pkv {

// How weights of one GGUF format are packed.
struct PackFormat {
  WeightType type;
  CodeKind code_kind;
  ScaleKind scale_kind;
  int32_t group;       // as in PackedView
  int32_t zero_point;  // as in PackedView
  // One block to a byte for each weight; nullptr where weights are floats.
  void (*codes)(const uint8_t* block, uint8_t* out);
  // The scales of one block to output `output` of the panel's.
  void (*scales)(const uint8_t* block, uint8_t* to, int32_t output);
};

const PackFormat& pack_format(WeightType type);

// Of a panel of `cols` inputs, a multiple of the type's block.
int64_t panel_code_bytes(const PackFormat& format, int64_t cols);
int64_t panel_scale_bytes(const PackFormat& format, int64_t cols);

// Packs `outputs` <= kPanelOutputs rows that lie one behind the other from `rows` on. `codes` and `scales`, a panel's
// bytes each, are zeros before; what belongs to outputs that there are not stays so.
void pack_panel(const PackFormat& format, const uint8_t* rows, int32_t outputs, int64_t cols, uint8_t* codes,
                uint8_t* scales);

}  // namespace pkv
