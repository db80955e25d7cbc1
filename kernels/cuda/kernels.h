// The kernels' host side: one plain function for each operation of Backend that is a kernel, in stream order, with the
// operation's own arguments (kernels/backend.h says what each does). Pointers are device memory; shapes are the
// caller's word. Each is defined in the .cu file of its group.
#pragma once

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/stream.h"
#include "kernels/entry_score.h"
#include "kernels/eviction.h"
#include "kernels/kv_view.h"
#include "kernels/operation_args.h"
#include "kernels/quant.h"
#include "kernels/sampling.h"
#include "kernels/tensor.h"

namespace pkv::gpu {

// ---- dense operations
void fill(Stream& stream, const TensorView& to, float value);
// table [V, D] of GGUF blocks.
void embed(Stream& stream, WeightType type, const void* table, const int32_t* ids, const TensorView& out);
// out = x weight^T (+ out when `accumulate`) in float32. x [R, K], weight [N, K] dense, out [R, N].
void linear_exact(Stream& stream, const TensorView& x, const float* weight, bool accumulate, const TensorView& out);
// The same with 16-bit factors and float32 sums, straight from GGUF blocks [N, K], for few rows. What a row comes to
// does not depend on the others.
void packed_gemm(Stream& stream, const TensorView& x, WeightType type, const void* weight, bool accumulate,
                 const TensorView& out);
// The float32 weights of `count` packed ones, whole blocks: the host's (kernels/quant.h) to the bit.
void decode_weights(Stream& stream, WeightType type, const void* blocks, int64_t count, float* out);
// Factors for Blas, rows of `inputs` bfloat16 numbers, an even count and zeros where there are none: [rows, cols] of
// packed weights, and rows of x.
void weight_factors(Stream& stream, WeightType type, const void* blocks, int64_t rows, int64_t cols, int64_t inputs,
                    uint16_t* out);
void input_factors(Stream& stream, const TensorView& x, int64_t inputs, uint16_t* out);
void rms_norm(Stream& stream, const TensorView& x, const TensorView& gain, float eps, const TensorView& out);
void add_bias(Stream& stream, const TensorView& x, const TensorView& bias);
void rope(Stream& stream, const TensorView& x, const int32_t* positions, const RopeSpec& spec);
void turn_rows(Stream& stream, const TensorView& x, int32_t delta, const RopeSpec& spec);
void silu_mul(Stream& stream, const TensorView& gate, const TensorView& up);

// ---- cache and attention
void set_page_ids(Stream& stream, int32_t* page_ids, const PageEdit* edits, int32_t count);
void write_kv(Stream& stream, const TensorView& k, const TensorView& v, const int32_t* positions, const KvView& kv,
              const RowSpans& spans, int32_t kv_heads);
// attend_exact() in float32; attend() with 16-bit factors where tensor cores take the shape and the format.
void attend_exact(Stream& stream, const AttendArgs& args);
void attend(Stream& stream, const AttendArgs& args);
// Float32 in both ways: by ordinary cores, and by tensor cores where these take the shape and the format.
void row_lse_exact(Stream& stream, const ObserveArgs& args, const TensorView& lse);
void row_lse(Stream& stream, const ObserveArgs& args, const TensorView& lse);
void column_mass_exact(Stream& stream, const ObserveArgs& args, const TensorView& lse, const TensorView& sums,
                       const TensorView& squares);
void column_mass(Stream& stream, const ObserveArgs& args, const TensorView& lse, const TensorView& sums,
                 const TensorView& squares);

// ---- scores and what is kept
void reduce_groups(Stream& stream, const TensorView& sums, GroupReduce reduce, const TensorView& out);
void weigh_groups(Stream& stream, const TensorView& squares, const TensorView& weights, float scale,
                  const TensorView& out);
void merge_scores(Stream& stream, const TensorView& other, bool by_mean, const TensorView& scores);
void pool_scores(Stream& stream, const TensorView& scores, PoolKind kind, int32_t kernel, const TensorView& out);
void score_entries(Stream& stream, const EntryScoring& scoring, const TensorView& scores);
void select_top(Stream& stream, const TensorView& scores, int32_t window, const TensorView& counts,
                const TensorView& kept);
void share_layer(Stream& stream, const TensorView& scores, const LayerShare& share, const TensorView& counts);
void count_for_recall(Stream& stream, const TensorView& scores, const TensorView& mass, const RecallShare& share,
                      const TensorView& counts, const TensorView& recalls);
void recall(Stream& stream, const TensorView& mass, const TensorView& kept, const TensorView& counts,
            const TensorView& recalls);
void gather(Stream& stream, const KvView& kv, int32_t from, const TensorView& kept, const TensorView& counts,
            int32_t to);

// ---- keys by themselves
void value_norms(Stream& stream, const KvView& kv, int32_t first_lane, int32_t kv_heads, const TensorView& factors,
                 const TensorView& norms);
void key_norms(Stream& stream, const KvView& kv, int32_t first_lane, const TensorView& norms);
void key_similarity(Stream& stream, const KvView& kv, int32_t first_lane, const TensorView& unit_sums,
                    const TensorView& cosines);
void turn_keys(Stream& stream, const KvView& kv, int32_t first_lane, int32_t lanes, int32_t first_slot, int32_t delta,
               const RopeSpec& spec);
void write_turned(Stream& stream, const TurnedRows& rows, const RopeSpec& spec);

// ---- evictions while generating
void take_columns(Stream& stream, const TensorView& from, const TensorView& columns, const TensorView& out);
void choose_slots(Stream& stream, const EvictingStep& step);
void score_new_entries(Stream& stream, const EvictingStep& step, const TensorView& k);
void keep_queries(Stream& stream, const EvictingStep& step, const TensorView& q);
void add_attention(Stream& stream, const EvictingStep& step, const TokenQueries& queries);
void set_scores(Stream& stream, const ScoredLanes& lanes, const TensorView& scores, int32_t newest);
void order_entries(Stream& stream, const ScoredLanes& lanes, const TensorView& order, const TensorView& counts);

// ---- logits
void sample_rows(Stream& stream, const SampleArgs& args);
void token_logprobs(Stream& stream, const LogprobArgs& args);
void compare_rows(Stream& stream, const TensorView& logits, const TensorView& baseline, const TensorView& results);

// Kernels get them by value, as bytes.
template <typename... Types>
constexpr bool kPlainData = ((std::is_trivially_copyable_v<Types> && std::is_standard_layout_v<Types>)&&...);
static_assert(kPlainData<TensorView, KvView, Lane, RowSpan, RowSpans, PageEdit, RopeSpec, AttendArgs, ObserveArgs,
                         TurnedRows, LayerShare, RecallShare, EntryScoring, EvictingStep, EvictingRow, TokenQueries,
                         ScoredLanes, SampleArgs, LogprobArgs>);

}  // namespace pkv::gpu
