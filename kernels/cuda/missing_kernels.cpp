// The kernels that are not there yet: each fails the stream with its name. Whoever writes one takes its row out; with
// the last row this file goes, and missing_kernels() with it.
#include "kernels/cuda/kernels.h"

#define PKV_MISSING_KERNELS(ROW)                                                                               \
  ROW(fill, const TensorView&, float)                                                                          \
  ROW(embed, const float*, const int32_t*, const TensorView&)                                                  \
  ROW(rms_norm, const TensorView&, const TensorView&, float, const TensorView&)                                \
  ROW(rope, const TensorView&, const int32_t*, const RopeSpec&)                                                \
  ROW(turn_rows, const TensorView&, int32_t, const RopeSpec&)                                                  \
  ROW(set_page_ids, int32_t*, const PageEdit*, int32_t)                                                        \
  ROW(write_kv, const TensorView&, const TensorView&, const int32_t*, const KvView&, const RowSpans&, int32_t) \
  ROW(attend, const AttendArgs&)                                                                               \
  ROW(row_lse, const ObserveArgs&, const TensorView&)                                                          \
  ROW(column_mass, const ObserveArgs&, const TensorView&, const TensorView&, const TensorView&)                \
  ROW(reduce_groups, const TensorView&, GroupReduce, const TensorView&)                                        \
  ROW(pool_scores, const TensorView&, PoolKind, int32_t, const TensorView&)                                    \
  ROW(score_entries, const EntryScoring&, const TensorView&)                                                   \
  ROW(select_top, const TensorView&, int32_t, const TensorView&, const TensorView&)                            \
  ROW(share_layer, const TensorView&, const LayerShare&, const TensorView&)                                    \
  ROW(count_for_recall, const TensorView&, const TensorView&, const RecallShare&, const TensorView&,           \
      const TensorView&)                                                                                       \
  ROW(recall, const TensorView&, const TensorView&, const TensorView&, const TensorView&)                      \
  ROW(gather, const KvView&, int32_t, const TensorView&, const TensorView&, int32_t)                           \
  ROW(key_norms, const KvView&, int32_t, const TensorView&)                                                    \
  ROW(key_similarity, const KvView&, int32_t, const TensorView&, const TensorView&)                            \
  ROW(turn_keys, const KvView&, int32_t, int32_t, int32_t, int32_t, const RopeSpec&)                           \
  ROW(write_turned, const TurnedRows&, const RopeSpec&)                                                        \
  ROW(take_columns, const TensorView&, const TensorView&, const TensorView&)                                   \
  ROW(choose_slots, const EvictingStep&)                                                                       \
  ROW(score_new_entries, const EvictingStep&, const TensorView&)                                               \
  ROW(add_scores, const ScoredLanes&, const TensorView&)                                                       \
  ROW(set_scores, const ScoredLanes&, const TensorView&, int32_t)                                              \
  ROW(order_entries, const ScoredLanes&, const TensorView&, const TensorView&)                                 \
  ROW(sample_rows, const SampleArgs&)                                                                          \
  ROW(token_logprobs, const LogprobArgs&)                                                                      \
  ROW(compare_rows, const TensorView&, const TensorView&, const TensorView&)

namespace pkv::gpu {

#define PKV_MISSING_KERNEL(name, ...) \
  void name(Stream& stream, __VA_ARGS__) { stream.fail(Fault::kUnimplemented, #name); }
PKV_MISSING_KERNELS(PKV_MISSING_KERNEL)

#define PKV_MISSING_NAME(name, ...) #name,
std::span<const std::string_view> missing_kernels() {
  static constexpr std::string_view kNames[] = {PKV_MISSING_KERNELS(PKV_MISSING_NAME)};
  return kNames;
}

}  // namespace pkv::gpu
