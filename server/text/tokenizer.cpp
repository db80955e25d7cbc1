// Chooses the tokenizer by the model file's metadata.
#include "server/text/tokenizer.h"

#include <array>

#include "absl/status/status.h"
#include "kernels/status_macros.h"
#include "server/model/errors.h"
#include "server/text/vocabulary_tokenizer.h"

namespace pkv {
namespace {

struct TokenizerKind {
  std::string_view name;
  absl::StatusOr<std::unique_ptr<Tokenizer>> (*load)(const GgufFile&);
};

constexpr std::array<TokenizerKind, 2> kKinds = {{
    {"gpt2", load_bpe_tokenizer},
    {"llama", load_spm_tokenizer},
}};

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> load_tokenizer(const GgufFile& file) {
  PKV_ASSIGN_OR_RETURN(const auto name, file.string("tokenizer.ggml.model"));
  for (const TokenizerKind& kind : kKinds) {
    if (kind.name == name) return kind.load(file);
  }
  return unimplemented("tokenizer.ggml.model: '", name, "' is not supported (gpt2, llama)");
}

}  // namespace pkv
