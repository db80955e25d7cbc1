// Model files: their keys and tensors, and what is made of them, the vocabulary and the shape.
#include <cstring>
#include <memory>
#include <string_view>

#include "server/model/gguf_parser.h"
#include "server/model/hyperparameters.h"
#include "server/text/tokenizer.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/support/gguf_writer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // A copy that ends where the file ends, so that a read beyond it is seen.
  const auto copy = std::make_unique<std::byte[]>(size);
  if (size > 0) std::memcpy(copy.get(), data, size);
  const absl::StatusOr<pkv::GgufContents> contents = pkv::parse_gguf({copy.get(), size});
  if (!contents.ok()) return 0;
  const pkv::test::TempFile file(std::string_view(reinterpret_cast<const char*>(data), size));
  const auto gguf = pkv::GgufFile::open(file.path());
  if (!gguf.ok()) return 0;
  const auto tokenizer = pkv::load_tokenizer(**gguf);
  if (tokenizer.ok()) (void)(*tokenizer)->encode("a text <s> of\n\nsome words", pkv::SpecialTokens::kParse);
  const auto architecture = (*gguf)->string("general.architecture");
  if (!architecture.ok()) return 0;
  const auto shape = pkv::read_shape(**gguf, *architecture);
  if (shape.ok()) (void)pkv::read_rope(**gguf, *shape);
  return 0;
}
