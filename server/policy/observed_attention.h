// The attention that observed rows give to the entries of a layer: what scores and recall are made of.
#pragma once

#include "server/policy/policy.h"

namespace pkv {

// sums[h, j] += the attention of every observed row to slot j. sums [Hq, n]; lse [>= rows that follow each other, Hq]
// is overwritten.
void add_observed_attention(const LayerView& layer, const TensorView& lse, const TensorView& sums);

// The attention of one set of rows added to buffers.sums, and its squares to buffers.squares.
void add_observed_squares(const LayerView& layer, const ObservedRows& rows, const ScoreBuffers& buffers);

// add_observed_attention(), not added to anything.
void sum_observed_attention(const LayerView& layer, const TensorView& lse, const TensorView& sums);

}  // namespace pkv
