// See page_values.h.
#include "kernels/cpu/lanes/page_values.h"

#include <algorithm>

#include "kernels/cpu/lanes/entry_elements.h"
#include "kernels/entry_codes.h"
#include "kernels/quant.h"

namespace pkv {
namespace {

struct Values {
  const AttentionKernels& kernels;
  const PageLayout& layout;
  const std::byte* page;
  int32_t begin;
  int32_t count;

  int64_t numbers() const { return int64_t{count} * layout.head_dim(); }

  const float* load(const float* stored, float*) const { return stored; }
  const float* load(const uint16_t* stored, float* room) const {
    kernels.half_to_float(stored, room, numbers());
    return room;
  }
  const float* load(const Bfloat16* stored, float* room) const {
    kernels.bfloat16_to_float(stored, room, numbers());
    return room;
  }
  const float* load(const NibblePair* codes, float* room) const {
    const int32_t d = layout.head_dim();
    for (int32_t place = begin; place < begin + count; ++place, codes += d / 2) {
      float* value = room + int64_t{place - begin} * d;
      for (int32_t first = 0; first < d; first += kValueScaleGroup) {
        const int32_t size = std::min(kValueScaleGroup, d - first);
        const float scale =
            half_to_float(*reinterpret_cast<const uint16_t*>(page + layout.value_scale_at(place, first)));
        for (int32_t i = first; i < first + size; i += 2) {
          value[i] = scale * static_cast<float>(((codes[i / 2].bits & 15) ^ 8) - 8);
          value[i + 1] = scale * static_cast<float>(((codes[i / 2].bits >> 4) ^ 8) - 8);
        }
        mix(value + first, size);
      }
    }
    return room;
  }
};

}  // namespace

const float* load_page_values(const AttentionKernels& kernels, const PageLayout& layout, const std::byte* page,
                              int32_t begin, int32_t count, float* room) {
  return with_elements(layout.format().id, [&](auto elements) {
    using Value = typename decltype(elements)::Value;
    return Values{kernels, layout, page, begin, count}.load(
        reinterpret_cast<const Value*>(page + layout.value_at(begin, 0)), room);
  });
}

}  // namespace pkv
