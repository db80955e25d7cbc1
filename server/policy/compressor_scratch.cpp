// Allocates the tensors.
#include "server/policy/compressor_scratch.h"

#include <utility>

#include "kernels/status_macros.h"

namespace pkv {

absl::StatusOr<std::unique_ptr<CompressorScratch>> CompressorScratch::create(Backend& backend, int32_t q_heads,
                                                                             const CacheGeometry& geometry,
                                                                             int32_t max_tokens) {
  std::unique_ptr<CompressorScratch> scratch(new CompressorScratch());
  struct Wish {
    Tensor* tensor;
    int32_t rows;
    int32_t cols;
    DType dtype;
  };
  const int32_t kv_heads = geometry.kv_heads;
  for (const Wish& wish :
       {Wish{&scratch->sums, q_heads, max_tokens, DType::kF32}, Wish{&scratch->mass, kv_heads, max_tokens, DType::kF32},
        Wish{&scratch->scores, kv_heads, max_tokens, DType::kF32},
        Wish{&scratch->kept, kv_heads, max_tokens, DType::kI32}, Wish{&scratch->counts, 1, kv_heads, DType::kI32},
        Wish{&scratch->state, kv_heads, geometry.head_dim, DType::kF32}}) {
    PKV_ASSIGN_OR_RETURN(*wish.tensor, backend.allocate(wish.rows, wish.cols, wish.dtype));
  }
  scratch->max_tokens = max_tokens;
  return scratch;
}

size_t CompressorScratch::bytes() const {
  return sums.bytes() + mass.bytes() + scores.bytes() + kept.bytes() + counts.bytes() + state.bytes();
}

}  // namespace pkv
