// Values go row by row to their places, keys are rounded row by row and transposed to [head_dim][slots].
#include "kernels/cpu/lanes/entry_writer.h"

#include <algorithm>
#include <cstring>

#include "kernels/cpu/lanes/entry_elements.h"
#include "kernels/entry_codes.h"
#include "kernels/quant.h"

namespace pkv {
namespace {

template <typename T>
void scatter_keys(const T* rows, int32_t count, int32_t head_dim, int32_t slots, T* keys) {
  for (int32_t k = 0; k < head_dim; ++k) {
    for (int32_t i = 0; i < count; ++i)
      keys[static_cast<int64_t>(k) * slots + i] = rows[static_cast<int64_t>(i) * head_dim + k];
  }
}

void convert(const AttentionKernels& kernels, const float* from, uint16_t* to, int32_t count) {
  kernels.to_half(from, to, count);
}
void convert(const AttentionKernels& kernels, const float* from, Bfloat16* to, int32_t count) {
  kernels.to_bfloat16(from, to, count);
}
void convert(const AttentionKernels&, const float* from, float* to, int32_t count) { std::copy_n(from, count, to); }

// A scale for `count` numbers: written to `scale`. Returns its inverse.
float write_scale(ElementType type, const float* from, int32_t count, std::byte* scale) {
  NumberRange range;
  for (int32_t i = 0; i < count; ++i) range.add(from[i]);
  const uint16_t half = float_to_half(scale_for(type, range));
  std::memcpy(scale, &half, sizeof(half));
  return inverse_of(half_to_float(half));
}

// `numbers` has room for the key.
void write_key_codes(const float* from, int32_t head_dim, float* numbers, int8_t* codes, std::byte* scale) {
  std::copy_n(from, head_dim, numbers);
  mix_group(numbers, head_dim);
  const float inverse = write_scale(ElementType::kI8, numbers, head_dim, scale);
  for (int32_t k = 0; k < head_dim; ++k) {
    codes[k] = static_cast<int8_t>(code_of(ElementType::kI8, numbers[k] * inverse));
  }
}

void write_value_codes(const PageLayout& layout, std::byte* page, int32_t place, const float* from) {
  auto* pairs = reinterpret_cast<NibblePair*>(page + layout.value_at(place, 0));
  for (int32_t first = 0; first < layout.head_dim(); first += kValueScaleGroup) {
    const int32_t count = std::min(kValueScaleGroup, layout.head_dim() - first);
    float numbers[kValueScaleGroup];
    std::copy_n(from + first, count, numbers);
    mix_group(numbers, count);
    const float inverse = write_scale(ElementType::kI4, numbers, count, page + layout.value_scale_at(place, first));
    for (int32_t i = 0; i < count; i += 2) {
      const int32_t low = code_of(ElementType::kI4, numbers[i] * inverse);
      const int32_t high = code_of(ElementType::kI4, numbers[i + 1] * inverse);
      pairs[(first + i) / 2].bits = static_cast<uint8_t>((low & 15) | high << 4);
    }
  }
}

}  // namespace

void EntryWriter::write(const PageLayout& layout, std::byte* page, int32_t place, const FloatEntries& entries) const {
  const int32_t d = layout.head_dim();
  with_elements(layout.format().id, [&](auto elements) {
    using Key = typename decltype(elements)::Key;
    using Value = typename decltype(elements)::Value;
    auto* keys = reinterpret_cast<Key*>(scratch_);
    for (int32_t i = 0; i < entries.count; ++i) {
      const float *key = entries.keys + i * entries.key_stride, *value = entries.values + i * entries.value_stride;
      if constexpr (kIsCode<Key>) {
        write_key_codes(key, d, reinterpret_cast<float*>(scratch_) + kMostEntries * d, keys + i * d,
                        page + layout.key_scale_at(place + i, 0));
        write_value_codes(layout, page, place + i, value);
      } else {
        convert(kernels_, key, keys + i * d, d);
        convert(kernels_, value, reinterpret_cast<Value*>(page + layout.value_at(place + i, 0)), d);
      }
    }
    scatter_keys(keys, entries.count, d, layout.slots(), reinterpret_cast<Key*>(page) + place);
  });
}

}  // namespace pkv
