// The loaders of the architectures, one file each, as the registry in model.cpp knows them.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "server/model/model.h"

namespace pkv {

// Llama 1, 2, 3, Mistral, SmolLM, TinyLlama.
absl::StatusOr<std::unique_ptr<Model>> load_llama(const GgufFile& file, Backend& backend, const Loading& loading);
// Qwen2, Qwen2.5.
absl::StatusOr<std::unique_ptr<Model>> load_qwen2(const GgufFile& file, Backend& backend, const Loading& loading);
// Qwen3, but not its mixtures of experts (architecture qwen3moe).
absl::StatusOr<std::unique_ptr<Model>> load_qwen3(const GgufFile& file, Backend& backend, const Loading& loading);

}  // namespace pkv
