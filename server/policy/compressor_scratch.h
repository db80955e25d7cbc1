// Tensors that entries are scored in.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "kernels/tensor_set.h"
#include "server/cache/kv_cache.h"

namespace pkv {

// Score tensors for lanes of up to `max_tokens` entries. RESOURCE_EXHAUSTED where the backend has no memory for them.
class CompressorScratch {
 public:
  static absl::StatusOr<std::unique_ptr<CompressorScratch>> create(Backend& backend, int32_t q_heads,
                                                                   const CacheGeometry& geometry, int32_t max_tokens);
  static uint64_t bytes(int32_t q_heads, const CacheGeometry& geometry, int32_t max_tokens);

  Tensor sums;                  // [Hq, max_tokens]
  Tensor squares, value_norms;  // [Hq, max_tokens]
  Tensor other_scores;          // [Hkv, max_tokens]
  Tensor mass;                  // [Hkv, max_tokens]
  Tensor scores;                // [Hkv, max_tokens]
  Tensor kept;                  // [Hkv, max_tokens] i32
  Tensor counts;                // [1, Hkv] i32: columns of `kept`
  Tensor state;                 // [Hkv, d]: lane state of a policy
  int32_t max_tokens = 0;

 private:
  CompressorScratch() = default;
  static TensorSet<CompressorScratch> tensors(int32_t q_heads, const CacheGeometry& geometry, int32_t max_tokens);
};

}  // namespace pkv
