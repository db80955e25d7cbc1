// Attention of single rows on tensor cores, for f16 entries and for codes: eight query heads of a KV head are the
// columns of every product, S^T = K Q^T and O^T = V^T P^T, so that a page is read once and in the order it lies in.
// Queries are split into two halves of 16 bits, which makes scores as good as float32 ones; weights are rounded to 16
// bits. Waits for memory: each warp has the next tile on its way while it works on one.
#include <algorithm>

#include "kernels/cuda/attend_prompt.h"
#include "kernels/cuda/attend_split.cuh"
#include "kernels/cuda/decode_codes.cuh"
#include "kernels/cuda/decode_halves.cuh"
#include "kernels/cuda/gpu.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"

namespace pkv::gpu {
namespace {

using decode::kHeads;
using decode::kWarps;
using decode::Unit;

// Whether pages of the format hold whole runs of slots, at multiples of 16 bytes.
constexpr bool whole_runs(KvDtype format, const KvView& kv) {
  return PageLayout(format, kv.head_dim, kv.page_bytes).slots() % decode::kRun == 0 &&
         kv.page_bytes % static_cast<int32_t>(sizeof(Unit)) == 0;
}

// Shared memory: sums of values [kHeads][head_dim], and before them the mixed queries; the warps' softmax; their tiles.
template <int32_t kSteps>
struct MatrixChunks {
  using Halves = decode::HalfTiles<kSteps>;
  static constexpr int32_t kHeadsOfUnit = kHeads;
  static constexpr int32_t kThreads = decode::kThreads;
  static constexpr int32_t kDims = kSteps * 16;
  static constexpr int32_t kSoftmaxFloats = kWarps * kHeads * 2;

  __device__ static Unit* tiles_of(float* shared) {
    return reinterpret_cast<Unit*>(shared + kHeads * kDims + kSoftmaxFloats);
  }
  template <typename Tiles>
  __device__ static Attended<kHeads> attend_tiles(const Tiles& tiles, int32_t begin, int32_t end, float* shared) {
    const decode::WarpState<kSteps> state = decode::walk_tiles<kSteps>(tiles, begin, end, tiles_of(shared));
    return decode::add_states<kSteps>(state, shared + kHeads * kDims, shared, Tiles::dimension);
  }

  __device__ static Attended<kHeads> attend_halves(const AttendArgs& args, const AttendUnit& unit, int32_t begin,
                                                   int32_t end, float* shared) {
    const LaneEntries<KvDtype::kF16> entries(args.kv, *unit.lane);
    const auto queries = decode::load_query_fragments<kSteps>(args.q.f32_row(unit.row), unit.heads);
    return attend_tiles(Halves(entries, queries, args.scale), begin, end, shared);
  }

  __device__ static Attended<kHeads> attend_codes(const AttendArgs& args, const AttendUnit& unit, int32_t begin,
                                                  int32_t end, float* shared) {
    const LaneEntries<KvDtype::kK8V4> entries(args.kv, *unit.lane);
    const float* row = args.q.f32_row(unit.row) + static_cast<int64_t>(unit.heads.first) * kDims;
    const int32_t floats = unit.heads.count * kDims;
    __syncthreads();  // whoever reads what was there
    for (auto i = static_cast<int32_t>(threadIdx.x); i < floats; i += kThreads) shared[i] = row[i];
    __syncthreads();
    mix_by_block(unit.heads.count, kDims, [=](int32_t h, int32_t i) -> float& { return shared[h * kDims + i]; });
    const auto queries = decode::load_query_fragments<kSteps>(shared, {0, unit.heads.count});
    const Attended<kHeads> attended =
        attend_tiles(decode::CodeTiles<kSteps>(entries, queries, args.scale), begin, end, shared);
    unmix_values(kHeads, kDims, shared);
    return attended;
  }

  __device__ static Attended<kHeads> attend(const AttendArgs& args, const AttendUnit& unit, int32_t begin, int32_t end,
                                            float* shared) {
    if (unit.lane->dtype == KvDtype::kF16) return attend_halves(args, unit, begin, end, shared);
    if constexpr (kSteps % 2 == 0) {
      if (has_codes(*unit.lane) && whole_runs(KvDtype::kK8V4, args.kv)) {
        return attend_codes(args, unit, begin, end, shared);
      }
    }
    return attend_slots < kHeads, kSteps <= 4 ? 2
                                              : 4 > (args.kv, *unit.lane, begin, end, args.q.f32_row(unit.row),
                                                     unit.heads, args.scale, shared);
  }

  static constexpr size_t shared_bytes() {
    constexpr size_t kMatrix =
        sizeof(float) * (kHeads * kDims + kSoftmaxFloats) + sizeof(Unit) * kWarps * decode::kStages * Halves::kUnits;
    static_assert(decode::CodeTiles<kSteps>::kUnits <= Halves::kUnits);
    return std::max(kMatrix, sizeof(float) * attend_floats(kHeads, kDims));
  }
};

}  // namespace

void attend(Stream& stream, const AttendArgs& args) {
  const bool in_runs = whole_runs(KvDtype::kF16, args.kv);
  const auto run = [&](auto worker) { attend_split<decltype(worker)>(stream, args, decltype(worker)::shared_bytes()); };
  if (args.phase == Phase::kPrefill && in_runs && attend_prompt(stream, args)) {
    return attend_prompt_exact_but_f16(stream, args);
  }
  if (args.phase == Phase::kDecode && in_runs) {
    switch (args.kv.head_dim) {
      case 64:
        return run(MatrixChunks<4>());
      case 80:
        return run(MatrixChunks<5>());
      case 96:
        return run(MatrixChunks<6>());
      case 128:
        return run(MatrixChunks<8>());
      default:
        break;
    }
  }
  attend_exact(stream, args);
}

}  // namespace pkv::gpu
