// Where the scales of a packed panel lie, by the kind of scale. Scales come in blocks that serve some groups of inputs;
// in a block, every part holds one element for each of the panel's outputs. Constants only: sources of all instruction
// sets include it.
#pragma once

#include <cstdint>

#include "kernels/cpu/kernel_table.h"

namespace pkv {

constexpr int32_t kPanelHalves = 2 * kPanelOutputs;  // bytes of a part of f16
constexpr int32_t kPanelBytes = kPanelOutputs;       // of a part of bytes

template <ScaleKind>
struct ScaleLayout;

template <>
struct ScaleLayout<ScaleKind::kHalf> {
  static constexpr int32_t kGroups = 1;
  static constexpr int32_t kScale = 0;  // f16
  static constexpr int32_t kBytes = kPanelHalves;
};

template <>
struct ScaleLayout<ScaleKind::kHalfMin> {
  static constexpr int32_t kGroups = 1;
  static constexpr int32_t kScale = 0;           // f16
  static constexpr int32_t kMin = kPanelHalves;  // f16
  static constexpr int32_t kBytes = 2 * kPanelHalves;
};

template <>
struct ScaleLayout<ScaleKind::kSuperMin> {
  static constexpr int32_t kGroups = 8;
  static constexpr int32_t kScale = 0;                                         // f16, of all groups
  static constexpr int32_t kMin = kPanelHalves;                                // f16, of all groups
  static constexpr int32_t kGroupScales = 2 * kPanelHalves;                    // [groups] u8
  static constexpr int32_t kGroupMins = kGroupScales + kGroups * kPanelBytes;  // [groups] u8
  static constexpr int32_t kBytes = kGroupMins + kGroups * kPanelBytes;
};

template <>
struct ScaleLayout<ScaleKind::kSuperSigned> {
  static constexpr int32_t kGroups = 16;
  static constexpr int32_t kScale = 0;                   // f16, of all groups
  static constexpr int32_t kGroupScales = kPanelHalves;  // [groups] i8
  static constexpr int32_t kBytes = kGroupScales + kGroups * kPanelBytes;
};

}  // namespace pkv
