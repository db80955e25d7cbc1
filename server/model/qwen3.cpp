// The architecture `qwen3` (Qwen3, arXiv 2505.09388): as qwen2 without biases; instead every head of q and k is
// normalised before it is rotated. The size of a head is a number of its own, not a share of the width.
#include "server/model/architectures.h"
#include "server/model/decoder.h"

namespace pkv {
namespace {

void load_extras(WeightLoader& loader, const ModelShape& shape, const std::string& prefix, DecoderLayer& layer) {
  layer.q_norm = loader.vector(prefix + "attn_q_norm.weight", shape.head_dim);
  layer.k_norm = loader.vector(prefix + "attn_k_norm.weight", shape.head_dim);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Model>> load_qwen3(const GgufFile& file, Backend& backend, const Loading& loading) {
  return load_decoder({.name = "qwen3", .pairing = RopePairing::kHalves, .load_extras = load_extras}, file, backend,
                      loading);
}

}  // namespace pkv
