// The architecture `llama`: rotated in neighbouring pairs, every projection without or (as some fine-tunes have it)
// with a bias on q, k and v.
#include "server/model/architectures.h"
#include "server/model/decoder.h"

namespace pkv {
namespace {

void load_extras(WeightLoader& loader, const ModelShape& shape, const std::string& prefix, DecoderLayer& layer) {
  load_qkv_biases(loader, shape, prefix, /*optional=*/true, layer);
  loader.ignore(prefix + "attn_rot_embd");  // frequencies some old converters wrote; they follow from the keys
}

}  // namespace

absl::StatusOr<std::unique_ptr<Model>> load_llama(const GgufFile& file, Backend& backend, const Loading& loading) {
  return load_decoder({.name = "llama", .pairing = RopePairing::kAdjacent, .load_extras = load_extras}, file, backend,
                      loading);
}

}  // namespace pkv
