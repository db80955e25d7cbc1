// Holds the structs that kernels share with the host to what device code needs: they compile under nvcc, are copied as
// bytes, and their arithmetic works on the device. There is no CUDA backend yet; this keeps its seam true.
#include <type_traits>

#include "kernels/entry_format.h"
#include "kernels/kv_view.h"
#include "kernels/tensor.h"

namespace pkv {

static_assert(std::is_trivially_copyable_v<TensorView> && std::is_standard_layout_v<TensorView>);
static_assert(std::is_trivially_copyable_v<Lane> && std::is_standard_layout_v<Lane>);
static_assert(std::is_trivially_copyable_v<KvView> && std::is_standard_layout_v<KvView>);
static_assert(std::is_trivially_copyable_v<RowSpan> && std::is_standard_layout_v<RowSpan>);
static_assert(std::is_trivially_copyable_v<EntryFormat> && std::is_standard_layout_v<EntryFormat>);
static_assert(std::is_trivially_copyable_v<PageLayout> && std::is_standard_layout_v<PageLayout>);

// Where lane 0's entry at `slot` begins: page arithmetic as every kernel will do it.
__global__ void locate_entry(KvView kv, int32_t slot, int64_t* key_offset, int64_t* value_offset) {
  const Lane lane = kv.lanes[0];
  const PageLayout layout{lane.dtype, kv.head_dim, kv.page_bytes};
  const int64_t page = int64_t{kv.page_ids[lane.first_page + slot / layout.slots()]} * kv.page_bytes;
  const int32_t place = slot % layout.slots();
  *key_offset = page + layout.key_at(place, 0);
  *value_offset = page + layout.value_at(place, 0);
}

}  // namespace pkv
