// The architectures llama, qwen2 and qwen3 once more, as directly as they can be written: float64, whole prompt at
// once, full attention, weights straight from the file. What the models are compared with; it shares nothing with them
// but the file reader and the decoders.
#pragma once

#include <cstdint>
#include <vector>

#include "server/model/gguf.h"

namespace pkv::test {

// [tokens][vocabulary]
using Matrix = std::vector<std::vector<double>>;

// The logits after every token of a text.
Matrix plain_decoder_logits(const GgufFile& file, const std::vector<int32_t>& tokens);

}  // namespace pkv::test
