// Evictions while generating. The operations are those of Backend (kernels/backend.h) with the same arguments.
#pragma once

#include "kernels/backend.h"
#include "kernels/cpu/thread_pool.h"

namespace pkv {

void cpu_take_columns(const TensorView& from, const TensorView& columns, const TensorView& out);
void cpu_choose_slots(const EvictingStep& step, ThreadPool& pool);
void cpu_score_new_entries(const EvictingStep& step, const TensorView& k, ThreadPool& pool);
void cpu_set_scores(const ScoredLanes& lanes, const TensorView& scores, int32_t newest, ThreadPool& pool);
void cpu_order_entries(const ScoredLanes& lanes, const TensorView& order, const TensorView& counts, ThreadPool& pool);

}  // namespace pkv
