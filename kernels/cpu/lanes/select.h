// Scoring entries and turning scores into kept slots. The operations are those of Backend (kernels/backend.h) with the
// same arguments.
#pragma once

#include <cstdint>

#include "kernels/backend.h"
#include "kernels/cpu/thread_pool.h"

namespace pkv {

void cpu_weigh_groups(const TensorView& squares, const TensorView& weights, float scale, const TensorView& out,
                      ThreadPool& pool);
void cpu_merge_scores(const TensorView& other, bool by_mean, const TensorView& scores, ThreadPool& pool);
void cpu_reduce_groups(const TensorView& sums, GroupReduce reduce, const TensorView& out, ThreadPool& pool);
void cpu_pool_scores(const TensorView& scores, PoolKind kind, int32_t kernel, const TensorView& out, ThreadPool& pool);
void cpu_score_entries(const EntryScoring& scoring, const TensorView& scores, ThreadPool& pool);
// In the next three NaN counts as -infinity, and -0 as 0.
void cpu_select_top(const TensorView& scores, int32_t window, const TensorView& counts, const TensorView& kept,
                    ThreadPool& pool);
void cpu_share_layer(const TensorView& scores, const LayerShare& share, const TensorView& counts, ThreadPool& pool);
void cpu_count_for_recall(const TensorView& scores, const TensorView& mass, const RecallShare& share,
                          const TensorView& counts, const TensorView& recalls, ThreadPool& pool);
void cpu_recall(const TensorView& mass, const TensorView& kept, const TensorView& counts, const TensorView& recalls,
                ThreadPool& pool);

}  // namespace pkv
