// The attention that observed rows give to the entries of a layer: what scores and recall are made of.
#pragma once

#include "server/policy/policy.h"

namespace pkv {

// sums[h, j] += the attention of the rows to slot j. sums [Hq, n]; lse [>= rows, Hq] is overwritten.
void add_attention(const LayerView& layer, const ObservedRows& rows, const TensorView& lse, const TensorView& sums);

// The same of rows whose log-sum-exps are known: lse [rows, Hq].
void add_known_attention(const LayerView& layer, const ObservedRows& rows, const TensorView& lse,
                         const TensorView& sums);

// Steps that set buffers.sums to the attention of all observed rows.
void sum_observed_attention(const LayerView& layer, const ScoreBuffers& buffers, ScoreSteps& steps);

// Steps that add the attention of one set of rows to buffers.sums, and its squares to buffers.squares.
void add_observed_squares(const LayerView& layer, const ObservedRows& rows, const ScoreBuffers& buffers,
                          ScoreSteps& steps);

}  // namespace pkv
