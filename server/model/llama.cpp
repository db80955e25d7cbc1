// The architecture `llama`: rotated in neighbouring pairs, every projection without or (as some fine-tunes have it)
// with a bias on q, k and v.
#include <utility>

#include "server/model/architectures.h"
#include "server/model/decoder.h"

namespace pkv {
namespace {

void load_extras(WeightLoader& loader, const ModelShape& shape, const std::string& prefix, DecoderLayer& layer) {
  const int64_t q_width = int64_t{shape.q_heads} * shape.head_dim, kv_width = int64_t{shape.kv_heads} * shape.head_dim;
  layer.q_bias = loader.optional_vector(prefix + "attn_q.bias", q_width);
  layer.k_bias = loader.optional_vector(prefix + "attn_k.bias", kv_width);
  layer.v_bias = loader.optional_vector(prefix + "attn_v.bias", kv_width);
  loader.ignore(prefix + "attn_rot_embd");  // frequencies some old converters wrote; they follow from the keys
}

}  // namespace

absl::StatusOr<std::unique_ptr<Model>> load_llama(const GgufFile& file, Backend& backend, std::stop_token stop) {
  return load_decoder({.name = "llama", .pairing = RopePairing::kAdjacent, .load_extras = load_extras}, file, backend,
                      std::move(stop));
}

}  // namespace pkv
