// Chooses the attention kernels of this CPU and hands steps to the decode or the prompt path.
#include "kernels/cpu/attention/attention.h"

#include <algorithm>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/entry_codes.h"

namespace pkv {
namespace {

const AttentionKernels& choose_kernels([[maybe_unused]] const IsaFeatures& features) {
#if defined(__x86_64__)
  if (features.avx512) return PathTable<AttentionKernels, Isa::kAvx512>::kernels;
  if (features.avx2) return PathTable<AttentionKernels, Isa::kAvx2>::kernels;
#endif
  return PathTable<AttentionKernels, Isa::kScalar>::kernels;
}

const PanelKernels& choose_panels([[maybe_unused]] const IsaFeatures& features, [[maybe_unused]] bool exact) {
#if defined(__x86_64__)
  if (features.amx && !exact) return PathTable<PanelKernels, Isa::kAmxBf16>::kernels;
  if (features.bf16 && !exact) return PathTable<PanelKernels, Isa::kAvx512Bf16>::kernels;
#endif
  return choose_kernels(features).panel;
}

}  // namespace

CpuAttention::CpuAttention(const IsaFeatures& features, bool exact, ThreadPool& pool)
    : kernels_(choose_kernels(features)),
      panels_(choose_panels(features, exact)),
      pool_(pool),
      per_thread_(pool.threads()) {}

LanePages lane_pages(const KvView& kv, int32_t lane) {
  const Lane& view = kv.lanes[lane];
  const PageLayout layout = page_layout(kv, view);
  return {.pool = kv.pool,
          .page_ids = kv.page_ids + view.first_page,
          .page_bytes = kv.page_bytes,
          .value_offset = layout.value_offset(),
          .key_scale_offset = layout.key_scale_offset(),
          .value_scale_offset = layout.value_scale_offset(),
          .slots = layout.slots(),
          .head_dim = kv.head_dim,
          .format = view.dtype};
}

const float* query_for(const LanePages& pages, const float* query, float* room) {
  if (entry_format(pages.format).key.scale_bytes == 0) return query;
  std::copy_n(query, pages.head_dim, room);
  mix(room, pages.head_dim);
  return room;
}

absl::Status CpuAttention::supports(const AttentionShape& shape) {
  if (shape.head_dim % kHeadDimMultiple != 0) {
    return absl::UnimplementedError(
        absl::StrCat("head sizes are multiples of ", kHeadDimMultiple, ", not ", shape.head_dim));
  }
  if (shape.q_heads % shape.kv_heads != 0 || shape.q_heads / shape.kv_heads > kMaxQueryGroup) {
    return absl::UnimplementedError(absl::StrCat("up to ", kMaxQueryGroup, " query heads share a KV head, not ",
                                                 shape.q_heads, " heads ", shape.kv_heads));
  }
  return absl::OkStatus();
}

void CpuAttention::attend(const AttendArgs& args) {
  PKV_CHECK(supports({args.q_heads, args.kv_heads, args.kv.head_dim}).ok(),
            "a model is loaded only if it is supported");
  if (args.phase == Phase::kDecode) {
    decode(args);
  } else {
    prefill(args);
  }
}

}  // namespace pkv
