// The one place where code for a lane's entries is chosen by their format: as C++ types of their elements.
#pragma once

#include <cstdint>

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

template <KvDtype kFormat>
struct EntryElements {
  using Key = typename ElementOf<entry_format(kFormat).key.element>::Type;
  using Value = typename ElementOf<entry_format(kFormat).value.element>::Type;
  static_assert(8 * sizeof(Key) == entry_format(kFormat).key.element_bits);
  static_assert(8 * sizeof(Value) == entry_format(kFormat).value.element_bits);
};

// visit(EntryElements<format>()). Inlined, for files with instruction-set flags of their own must share no code.
template <typename Visit>
[[gnu::always_inline]] inline decltype(auto) with_elements(KvDtype format, const Visit& visit) {
  switch (format) {
    case KvDtype::kF16:
      return visit(EntryElements<KvDtype::kF16>());
    case KvDtype::kF32:
      return visit(EntryElements<KvDtype::kF32>());
  }
  __builtin_unreachable();
}

}  // namespace pkv
