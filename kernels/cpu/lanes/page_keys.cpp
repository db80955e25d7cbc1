// See page_keys.h.
#include "kernels/cpu/lanes/page_keys.h"

#include <vector>

#include "kernels/cpu/lanes/entry_elements.h"
#include "kernels/entry_codes.h"
#include "kernels/quant.h"

namespace pkv {
namespace {

uint16_t* scales_of(const PageLayout& layout, std::byte* page) {
  return reinterpret_cast<uint16_t*>(page + layout.key_scale_offset());
}

struct Keys {
  const AttentionKernels& kernels;
  const PageLayout& layout;
  std::byte* page;

  int64_t count() const { return int64_t{layout.slots()} * layout.head_dim(); }

  float* load(float* stored, float*) const { return stored; }
  float* load(const uint16_t* stored, float* room) const {
    kernels.half_to_float(stored, room, count());
    return room;
  }
  float* load(const Bfloat16* stored, float* room) const {
    kernels.bfloat16_to_float(stored, room, count());
    return room;
  }
  float* load(const int8_t* codes, float* room) const {
    const int32_t slots = layout.slots();
    float* scales = room + count() - slots;  // until the last dimension comes there
    kernels.half_to_float(scales_of(layout, page), scales, slots);
    float* to = room;
    for (int32_t k = 0; k < layout.head_dim(); ++k, codes += slots, to += slots) {
      for (int32_t j = 0; j < slots; ++j) to[j] = static_cast<float>(codes[j]) * scales[j];
    }
    unmix(room);
    return room;
  }

  void store(const float*, float*, const ChangedKeys&) const {}  // they lie there
  void store(const float* keys, uint16_t* stored, const ChangedKeys& changed) const {
    kernels.to_half(keys, stored, int64_t{changed.dims} * layout.slots());
  }
  void store(const float* keys, Bfloat16* stored, const ChangedKeys& changed) const {
    kernels.to_bfloat16(keys, stored, int64_t{changed.dims} * layout.slots());
  }
  // A key's codes have one scale, so all of its dimensions change.
  void store(const float* keys, int8_t* codes, const ChangedKeys& changed) const {
    const int64_t slots = layout.slots();
    std::vector<float> numbers(static_cast<size_t>(layout.head_dim()));
    for (int32_t j = changed.begin; j < changed.end; ++j) {
      NumberRange range;
      for (size_t k = 0; k < numbers.size(); ++k) numbers[k] = keys[static_cast<int64_t>(k) * slots + j];
      mix_group(numbers.data(), layout.head_dim());
      for (const float number : numbers) range.add(number);
      uint16_t& scale = scales_of(layout, page)[j];
      scale = float_to_half(scale_for(ElementType::kI8, range));
      const float inverse = inverse_of(half_to_float(scale));
      for (size_t k = 0; k < numbers.size(); ++k) {
        codes[static_cast<int64_t>(k) * slots + j] =
            static_cast<int8_t>(code_of(ElementType::kI8, numbers[k] * inverse));
      }
    }
  }

 private:
  // mix() of every slot's key.
  void unmix(float* keys) const {
    const int64_t slots = layout.slots();
    for (int32_t reach = 1; reach < mixed_at_once(layout.head_dim()); reach *= 2) {
      for (int32_t k = 0; k < layout.head_dim(); ++k) {
        if ((k & reach) != 0) continue;
        float *a = keys + k * slots, *b = a + reach * slots;
        for (int64_t j = 0; j < slots; ++j) {
          const float sum = a[j] + b[j], difference = a[j] - b[j];
          a[j] = sum;
          b[j] = difference;
        }
      }
    }
  }
};

}  // namespace

float* load_page_keys(const AttentionKernels& kernels, const PageLayout& layout, std::byte* page, float* room) {
  return with_elements(layout.format().id, [&](auto elements) {
    return Keys{kernels, layout, page}.load(reinterpret_cast<typename decltype(elements)::Key*>(page), room);
  });
}

void store_page_keys(const AttentionKernels& kernels, const PageLayout& layout, std::byte* page, const float* keys,
                     const ChangedKeys& changed) {
  with_elements(layout.format().id, [&](auto elements) {
    Keys{kernels, layout, page}.store(keys, reinterpret_cast<typename decltype(elements)::Key*>(page), changed);
  });
}

}  // namespace pkv
