// The architecture `qwen2` (Qwen2, arXiv 2407.10671; Qwen2.5, arXiv 2412.15115): rotated in halves, biases on q, k and
// v, an output head of its own or the embedding.
#include "server/model/architectures.h"
#include "server/model/decoder.h"

namespace pkv {
namespace {

void load_extras(WeightLoader& loader, const ModelShape& shape, const std::string& prefix, DecoderLayer& layer) {
  load_qkv_biases(loader, shape, prefix, /*optional=*/false, layer);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Model>> load_qwen2(const GgufFile& file, Backend& backend, const Loading& loading) {
  return load_decoder({.name = "qwen2", .pairing = RopePairing::kHalves, .load_extras = load_extras}, file, backend,
                      loading);
}

}  // namespace pkv
