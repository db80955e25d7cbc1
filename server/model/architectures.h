// The loaders of the architectures, one file each, as the registry in model.cpp knows them.
#pragma once

#include <memory>
#include <stop_token>

#include "absl/status/statusor.h"
#include "server/model/model.h"

namespace pkv {

// Llama 1, 2, 3, Mistral, SmolLM, TinyLlama.
absl::StatusOr<std::unique_ptr<Model>> load_llama(const GgufFile& file, Backend& backend, std::stop_token stop);
// Qwen2, Qwen2.5.
absl::StatusOr<std::unique_ptr<Model>> load_qwen2(const GgufFile& file, Backend& backend, std::stop_token stop);
// Qwen3, but not its mixtures of experts (architecture qwen3moe).
absl::StatusOr<std::unique_ptr<Model>> load_qwen3(const GgufFile& file, Backend& backend, std::stop_token stop);

}  // namespace pkv
