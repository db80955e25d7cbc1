// Allocates the tensors.
#include "server/policy/compressor_scratch.h"

#include "kernels/status_macros.h"
#include "kernels/tensor_set.h"

namespace pkv {

absl::StatusOr<std::unique_ptr<CompressorScratch>> CompressorScratch::create(Backend& backend, int32_t q_heads,
                                                                             const CacheGeometry& geometry,
                                                                             int32_t max_tokens) {
  const int32_t kv_heads = geometry.kv_heads;
  const TensorSet<CompressorScratch> tensors = {
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
  std::unique_ptr<CompressorScratch> scratch(new CompressorScratch());
  PKV_RETURN_IF_ERROR(tensors.allocate(backend, *scratch));
  scratch->max_tokens = max_tokens;
  scratch->bytes_ = tensors.bytes();
  return scratch;
}

}  // namespace pkv
