// Small vocabularies for the tests of this folder, as GGUF metadata that a test may change before it loads them.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "server/text/tokenizer.h"
#include "tests/support/gguf_writer.h"

namespace pkv::test {

// Byte-level BPE, pre-tokeniser gpt-2: <|endoftext|> 0, <|im_start|> 1, <|im_end|> 2 (eos) control, <tool> 3 and
// <tool>s 4 user-defined, from kFirstByte on the 256 bytes in the order of GPT-2's alphabet by code point, then the
// merges h e, l l, he ll, hell o, Ġ w.
inline constexpr TokenId kFirstByte = 5;
GgufWriter bpe_vocabulary();
// The id of a one-byte token of bpe_vocabulary().
TokenId byte_id(uint8_t byte);

// SentencePiece-style: <unk> 0, <s> 1, </s> 2, the 256 byte tokens from 3 on, then ▁ 259, a 260, b 261, ab 262 (-1),
// ▁a 263 (-2), ▁ab 264 (-3), bb 265 (-4).
GgufWriter spm_vocabulary();

absl::StatusOr<std::unique_ptr<Tokenizer>> try_load(const GgufWriter& writer);
std::unique_ptr<Tokenizer> load(const GgufWriter& writer);  // must succeed

}  // namespace pkv::test
