// Cuts a text into the pieces inside which byte-level BPE merges, by the regular expression a model was trained with.
#pragma once

#include <memory>
#include <span>
#include <stop_token>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

struct pcre2_real_code_8;

namespace pkv {

// One row of the table of pre-tokenisers, named as in tokenizer.ggml.pre.
struct PreTokenizerSpec {
  std::string_view name;
  std::string_view pattern;  // Perl syntax; \s is the Unicode property White_Space
  bool whole_pieces;         // a piece that is a token is taken as it is, without merging
  bool add_bos;              // where the model's metadata does not say
};

std::span<const PreTokenizerSpec> pre_tokenizer_table();
const PreTokenizerSpec* find_pre_tokenizer(std::string_view name);

class PreTokenizer {
 public:
  // INTERNAL where PCRE2 refuses the pattern.
  static absl::StatusOr<PreTokenizer> create(const PreTokenizerSpec& spec);

  // Appends the pieces of `text` (valid UTF-8), in order and without gaps. RESOURCE_EXHAUSTED where PCRE2 gives up,
  // CANCELLED between two pieces once `stop` was requested.
  absl::Status split(std::string_view text, const std::stop_token& stop, std::vector<std::string_view>& pieces) const;

 private:
  explicit PreTokenizer(pcre2_real_code_8* code);
  std::shared_ptr<pcre2_real_code_8> code_;  // immutable once compiled
};

}  // namespace pkv
