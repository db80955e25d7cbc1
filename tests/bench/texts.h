// The texts that benchmarks read: files of text, or of token ids.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/model/gguf.h"

namespace pkv {

struct Text {
  std::string name;
  std::vector<int32_t> ids;
};

// Every path is a text, tokenised with the tokenizer of `file`, or ends in .json and holds {name: [token ids]}.
// NOT_FOUND or INVALID_ARGUMENT where one cannot be read.
absl::StatusOr<std::vector<Text>> read_texts(const std::vector<std::string>& paths, const GgufFile& file);

}  // namespace pkv
