// The architecture `qwen2` (Qwen2, arXiv 2407.10671; Qwen2.5, arXiv 2412.15115): rotated in halves, biases on q, k and
// v, an output head of its own or the embedding.
#include <utility>

#include "server/model/architectures.h"
#include "server/model/decoder.h"

namespace pkv {
namespace {

void load_extras(WeightLoader& loader, const ModelShape& shape, const std::string& prefix, DecoderLayer& layer) {
  const int64_t q_width = int64_t{shape.q_heads} * shape.head_dim, kv_width = int64_t{shape.kv_heads} * shape.head_dim;
  layer.q_bias = loader.vector(prefix + "attn_q.bias", q_width);
  layer.k_bias = loader.vector(prefix + "attn_k.bias", kv_width);
  layer.v_bias = loader.vector(prefix + "attn_v.bias", kv_width);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Model>> load_qwen2(const GgufFile& file, Backend& backend, std::stop_token stop) {
  return load_decoder({.name = "qwen2", .pairing = RopePairing::kHalves, .load_extras = load_extras}, file, backend,
                      std::move(stop));
}

}  // namespace pkv
