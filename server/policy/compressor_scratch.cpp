// Allocates the tensors.
#include "server/policy/compressor_scratch.h"

#include "kernels/status_macros.h"

namespace pkv {

TensorSet<CompressorScratch> CompressorScratch::tensors(int32_t q_heads, const CacheGeometry& geometry,
                                                        int32_t max_tokens) {
  const int32_t kv_heads = geometry.kv_heads;
  return {
      {&CompressorScratch::sums, q_heads, max_tokens},
      {&CompressorScratch::squares, q_heads, max_tokens},
      {&CompressorScratch::value_norms, q_heads, max_tokens},
      {&CompressorScratch::other_scores, kv_heads, max_tokens},
      {&CompressorScratch::mass, kv_heads, max_tokens},
      {&CompressorScratch::scores, kv_heads, max_tokens},
      {&CompressorScratch::kept, kv_heads, max_tokens, DType::kI32},
      {&CompressorScratch::counts, 1, kv_heads, DType::kI32},
      {&CompressorScratch::state, kv_heads, geometry.head_dim},
  };
}

uint64_t CompressorScratch::bytes(int32_t q_heads, const CacheGeometry& geometry, int32_t max_tokens) {
  return tensors(q_heads, geometry, max_tokens).bytes();
}

absl::StatusOr<std::unique_ptr<CompressorScratch>> CompressorScratch::create(Backend& backend, int32_t q_heads,
                                                                             const CacheGeometry& geometry,
                                                                             int32_t max_tokens) {
  std::unique_ptr<CompressorScratch> scratch(new CompressorScratch());
  PKV_RETURN_IF_ERROR(tensors(q_heads, geometry, max_tokens).allocate(backend, *scratch));
  scratch->max_tokens = max_tokens;
  return scratch;
}

}  // namespace pkv
