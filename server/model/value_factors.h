// How much a cached value weighs in its layer's output: |v W_o^h| for query head h, where W_o^h are the d rows of the
// output projection that the head meets. The d x d factor R_h with R_h R_h^T = W_o^h W_o^h^T gives the same length as
// |v R_h|, at d / D of the work.
#pragma once

#include <stop_token>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "server/model/gguf.h"
#include "server/model/model.h"

namespace pkv {

// [layers * Hq * d, d]: the lower triangular factor of every query head, from the tensors blk.*.attn_output.weight,
// which all architectures have. RESOURCE_EXHAUSTED where the backend has no memory for it, CANCELLED between two layers
// once `stop` is requested.
absl::StatusOr<Tensor> make_value_factors(const GgufFile& file, const ModelShape& shape, Backend& backend,
                                          const std::stop_token& stop);

}  // namespace pkv
