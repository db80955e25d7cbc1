// What the architectures of the llama family say of themselves in a GGUF file: their shape and their rotary embedding.
// Keys are named ARCHITECTURE.key there, otherwise alike.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/model/gguf.h"
#include "server/model/model.h"

namespace pkv {

// All of ModelShape but `weights`. Everything is checked for consistency, so that shapes derived from it do not
// overflow.
//
// A sliding window (Mistral 7B v0.1) limits max_positions to the window: up to there it is the same as full attention,
// and beyond it this build would compute something else than the model was trained with.
//
// INVALID_ARGUMENT naming the key; UNIMPLEMENTED for a mixture of experts.
absl::StatusOr<ModelShape> read_shape(const GgufFile& file, const std::string& architecture);

// UNIMPLEMENTED naming the keys that a backend cannot compute the attention of.
absl::Status check_attention(const ModelShape& shape, const Backend& backend);

// Rotary position embedding with its frequency scaling applied.
struct RopeParameters {
  std::vector<float> inv_freq;  // [rotary_dims / 2]
  float magnitude = 1.0f;
};

// inv_freq[i] = base^(-2i / rotary_dims), computed in double precision, divided by the scaling factor of linear scaling
// (arXiv 2306.15595) and by rope_freqs.weight[i] where the file has that tensor (Llama 3.1). INVALID_ARGUMENT naming
// the key or tensor; UNIMPLEMENTED naming the key for another scaling.
absl::StatusOr<RopeParameters> read_rope(const GgufFile& file, const ModelShape& shape);

}  // namespace pkv
