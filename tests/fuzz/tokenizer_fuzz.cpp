// Texts of callers. The first byte says which kind of vocabulary, and whether special tokens are parsed.
#include <string>
#include <string_view>

#include "kernels/check.h"
#include "server/text/detokenizer.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/unit/text/vocabularies.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto bpe = pkv::test::load(pkv::test::bpe_vocabulary());
  static const auto spm = pkv::test::load(pkv::test::spm_vocabulary());
  if (size == 0) return 0;
  const pkv::Tokenizer& tokenizer = *data % 2 == 0 ? *bpe : *spm;
  const auto special = *data / 2 % 2 == 0 ? pkv::SpecialTokens::kParse : pkv::SpecialTokens::kPlainText;
  const std::string_view text(reinterpret_cast<const char*>(data + 1), size - 1);
  const absl::StatusOr<pkv::EncodedText> encoded = tokenizer.encode_with_offsets(text, special);
  if (!encoded.ok()) return 0;
  PKV_CHECK(encoded->ids.size() == encoded->begins.size(), "a place for every token");
  const bool exact = !tokenizer.adds_leading_space();  // SentencePiece has one sign for a space and for itself
  const std::string decoded = *tokenizer.decode(encoded->ids);
  PKV_CHECK(!exact || decoded == text, "the text comes back");
  pkv::Detokenizer detokenizer(tokenizer, /*skip_leading_space=*/true);
  std::string streamed;
  for (const pkv::TokenId id : encoded->ids) streamed += detokenizer.push(id);
  streamed += detokenizer.finish();
  PKV_CHECK(streamed == decoded, "in pieces, too");
  return 0;
}
