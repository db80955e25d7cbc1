// The one place where code for a lane's entries is chosen by their format: as C++ types of their elements.
#pragma once

#include <cstdint>
#include <type_traits>

#include "kernels/cpu/elements.h"
#include "kernels/entry_format.h"

namespace pkv {

template <ElementType>
struct ElementOf;
template <>
struct ElementOf<ElementType::kF16> {
  using Type = uint16_t;  // IEEE binary16, as it is stored
};
template <>
struct ElementOf<ElementType::kF32> {
  using Type = float;
};
template <>
struct ElementOf<ElementType::kBF16> {
  using Type = Bfloat16;
};
template <>
struct ElementOf<ElementType::kI8> {
  using Type = int8_t;
};
template <>
struct ElementOf<ElementType::kI4> {
  using Type = NibblePair;
};

template <KvDtype kFormat>
struct EntryElements {
  using Key = typename ElementOf<entry_format(kFormat).key.element>::Type;
  using Value = typename ElementOf<entry_format(kFormat).value.element>::Type;
  static_assert(8 * sizeof(Key) == entry_format(kFormat).key.element_bits * kNumbersIn<Key>);
  static_assert(8 * sizeof(Value) == entry_format(kFormat).value.element_bits * kNumbersIn<Value>);
};

// Whether what is stored are codes, of which numbers come by a scale: f16, one of a whole key, and one of
// kValueScaleGroup numbers of a value.
template <typename T>
constexpr bool kIsCode = std::is_same_v<T, int8_t> || std::is_same_v<T, NibblePair>;
constexpr int32_t kValueScaleGroup = 32;
static_assert(entry_format(KvDtype::kK8V4).key.scale_group == 0 &&
              entry_format(KvDtype::kK8V4).value.scale_group == kValueScaleGroup);

// visit(EntryElements<format>()). Inlined, for files with instruction-set flags of their own must share no code.
template <typename Visit>
[[gnu::always_inline]] inline decltype(auto) with_elements(KvDtype format, const Visit& visit) {
  switch (format) {
    case KvDtype::kF16:
      return visit(EntryElements<KvDtype::kF16>());
    case KvDtype::kF32:
      return visit(EntryElements<KvDtype::kF32>());
    case KvDtype::kBF16:
      return visit(EntryElements<KvDtype::kBF16>());
    case KvDtype::kK8V4:
      return visit(EntryElements<KvDtype::kK8V4>());
  }
  __builtin_unreachable();
}

}  // namespace pkv
