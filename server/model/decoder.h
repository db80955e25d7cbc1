// What the architectures of the llama family share: a stack of pre-normalised blocks of grouped-query attention with
// rotary positions and a SwiGLU feed-forward (LLaMA, arXiv 2302.13971). An architecture says how it differs: llama.cpp,
// qwen2.cpp, qwen3.cpp.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "server/model/model.h"
#include "server/model/weight_loader.h"

namespace pkv {

struct DecoderLayer {
  Tensor attention_norm;                     // [1, D]
  std::unique_ptr<Weight> q, k, v;           // D -> heads * d
  Tensor q_bias, k_bias, v_bias;             // [1, heads * d] or empty
  Tensor q_norm, k_norm;                     // [1, d] or empty: gains of an RMSNorm of every head before its rotation
  std::unique_ptr<Weight> attention_output;  // Hq * d -> D
  Tensor feed_forward_norm;                  // [1, D]
  std::unique_ptr<Weight> gate, up;          // D -> F
  std::unique_ptr<Weight> down;              // F -> D
};

// Of a layer, "blk.3." say, the biases of q, k and v. Optional ones may be absent, all or some.
void load_qkv_biases(WeightLoader& loader, const ModelShape& shape, const std::string& prefix, bool optional,
                     DecoderLayer& layer);

struct DecoderArchitecture {
  std::string_view name;  // general.architecture, and what its keys begin with
  RopePairing pairing;
  // Loads into a layer what not every architecture has. `prefix`: of the layer's tensors, "blk.3.".
  void (*load_extras)(WeightLoader& loader, const ModelShape& shape, const std::string& prefix, DecoderLayer& layer);
};

// As load_model().
absl::StatusOr<std::unique_ptr<Model>> load_decoder(const DecoderArchitecture& architecture, const GgufFile& file,
                                                    Backend& backend, const Loading& loading);

}  // namespace pkv
