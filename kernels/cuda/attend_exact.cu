// Attention in float32 on ordinary cores: any head size to 256, any group of query heads, every entry format. Exact
// mode runs on it, and what other kernels do not take.
#include "kernels/cuda/attend_prompt.h"
#include "kernels/cuda/attend_split.cuh"
#include "kernels/cuda/attend_walk.cuh"
#include "kernels/cuda/gpu.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"

namespace pkv::gpu {
namespace {

// ---- prompts: there are enough rows for one block to walk a whole lane

// Block (x, y): row x of q, part y of its query heads. `f16`: also of lanes with f16 entries.
template <int32_t kHeads, int32_t kDims>
__global__ void __launch_bounds__(kAttendThreads) attend_rows_kernel(AttendArgs args, bool f16) {
  PKV_DYNAMIC_SHARED(float, shared);
  const AttendUnit unit = attend_unit<kHeads>(args, static_cast<int32_t>(blockIdx.x), static_cast<int32_t>(blockIdx.y));
  if (unit.lane == nullptr || (!f16 && unit.lane->dtype == KvDtype::kF16)) return;
  if (unit.visible == 0) return write_nothing(args, unit.row, unit.heads);
  const Attended<kHeads> attended = attend_slots<kHeads, kDims>(
      args.kv, *unit.lane, 0, unit.visible, args.q.f32_row(unit.row), unit.heads, args.scale, shared);
  write_attended<kHeads>(args, unit.row, unit.heads, attended, shared);
}

// ---- single rows: blocks share the chunks of all lanes

template <int32_t kHeads, int32_t kDims>
struct ExactChunks {
  static constexpr int32_t kHeadsOfUnit = kHeads;
  static constexpr int32_t kThreads = kAttendThreads;

  __device__ static Attended<kHeads> attend(const AttendArgs& args, const AttendUnit& unit, int32_t begin, int32_t end,
                                            float* shared) {
    return attend_slots<kHeads, kDims>(args.kv, *unit.lane, begin, end, args.q.f32_row(unit.row), unit.heads,
                                       args.scale, shared);
  }
};

template <int32_t kHeads, int32_t kDims>
void attend_rows(Stream& stream, const AttendArgs& args, bool f16) {
  launch(stream, "attend",
         {.blocks = args.q.rows,
          .threads = kAttendThreads,
          .blocks_y = int64_t{args.kv_heads} * query_parts(args.q_heads / args.kv_heads, kHeads),
          .shared_bytes = sizeof(float) * attend_floats(kHeads, args.kv.head_dim)},
         attend_rows_kernel<kHeads, kDims>, args, f16);
}

}  // namespace

void attend_exact(Stream& stream, const AttendArgs& args) {
  with_attend_shape(args, [&](auto heads, auto dims) {
    constexpr int32_t kHeads = decltype(heads)::value, kDims = decltype(dims)::value;
    if (args.phase == Phase::kPrefill) return attend_rows<kHeads, kDims>(stream, args, true);
    attend_split<ExactChunks<kHeads, kDims>>(stream, args, sizeof(float) * attend_floats(kHeads, args.kv.head_dim));
  });
}

void attend_prompt_exact_but_f16(Stream& stream, const AttendArgs& args) {
  with_attend_shape(args, [&](auto heads, auto dims) {
    attend_rows<decltype(heads)::value, decltype(dims)::value>(stream, args, false);
  });
}

}  // namespace pkv::gpu
