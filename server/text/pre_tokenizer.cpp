// The table of pre-tokenisers and their matching with PCRE2.
#define PCRE2_CODE_UNIT_WIDTH 8
#include "server/text/pre_tokenizer.h"

#include <pcre2.h>

#include <array>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "server/text/cancelled.h"

namespace pkv {
namespace {

// GPT-2's encoder.py. The reference implementations of all of these use \s as the property White_Space.
constexpr std::string_view kGpt2 = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// Two steps in one: first every digit is cut out, then GPT-2's expression is applied between the digits, for which a
// digit is therefore an end of text: spaces in front of one stay together.
constexpr std::string_view kSmolLm =
    R"(\p{N}|'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+)";

// Llama 3's tokenizer.py (cl100k with numbers of up to three digits).
constexpr std::string_view kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

// Qwen2's tokenization_qwen2.py: the same with single digits. (Its NFC normalisation of the text is not done: GGUF does
// not carry it, and texts are NFC nearly always.)
constexpr std::string_view kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

constexpr std::array<PreTokenizerSpec, 4> kTable = {{
    {.name = "gpt-2", .pattern = kGpt2, .whole_pieces = false, .add_bos = false},
    {.name = "smollm", .pattern = kSmolLm, .whole_pieces = false, .add_bos = false},
    {.name = "llama-bpe", .pattern = kLlama3, .whole_pieces = true, .add_bos = true},
    {.name = "qwen2", .pattern = kQwen2, .whole_pieces = false, .add_bos = false},
}};

std::string pcre2_message(int code) {
  PCRE2_UCHAR buffer[256];
  pcre2_get_error_message(code, buffer, sizeof buffer);
  return reinterpret_cast<const char*>(buffer);
}

// What one thread needs to match. Machine code has some room of the thread's own stack: more than any expression of the
// table needs, however long the text (16 MiB of one character were tried). A stack of its own is a mapping of memory.
struct Matcher {
  explicit Matcher(const pcre2_code* code)
      : data(pcre2_match_data_create_from_pattern(code, nullptr), pcre2_match_data_free),
        context(pcre2_match_context_create(nullptr), pcre2_match_context_free) {
    // No expression of the table has nested repetition; the default limits would only stop runs of millions of spaces.
    pcre2_set_match_limit(context.get(), UINT32_MAX);
  }
  std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> data;
  std::unique_ptr<pcre2_match_context, decltype(&pcre2_match_context_free)> context;
};

}  // namespace

std::span<const PreTokenizerSpec> pre_tokenizer_table() { return kTable; }

const PreTokenizerSpec* find_pre_tokenizer(std::string_view name) {
  for (const PreTokenizerSpec& spec : kTable) {
    if (spec.name == name) return &spec;
  }
  return nullptr;
}

PreTokenizer::PreTokenizer(pcre2_real_code_8* code) : code_(code, pcre2_code_free) {}

absl::StatusOr<PreTokenizer> PreTokenizer::create(const PreTokenizerSpec& spec) {
  // PCRE2's own \s takes U+180E too, which has not been white space since Unicode 6.3.
  const std::string pattern = absl::StrReplaceAll(std::string(spec.pattern),
                                                  {{R"(\s)", R"(\p{White_Space})"}, {R"(\S)", R"(\P{White_Space})"}});
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                   PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &offset, nullptr);
  if (code == nullptr) {
    return absl::InternalError(
        absl::StrCat("pre-tokeniser ", std::string(spec.name), ": ", pcre2_message(error), " at ", offset));
  }
  // Where machine code cannot be made (a library without it, memory that may not be executable), pcre2_match
  // interprets.
  (void)pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
  return PreTokenizer(code);
}

absl::Status PreTokenizer::split(std::string_view text, const std::stop_token& stop,
                                 std::vector<std::string_view>& pieces) const {
  const Matcher matcher(code_.get());
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  const PCRE2_SIZE* span = pcre2_get_ovector_pointer(matcher.data.get());
  size_t at = 0;
  while (at < text.size()) {
    if (stop.stop_requested()) return cancelled_by_caller();
    // The text was checked as a whole; checking it again from every piece would be quadratic.
    const int rc = pcre2_match(code_.get(), subject, text.size(), at, PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY,
                               matcher.data.get(), matcher.context.get());
    if (rc == PCRE2_ERROR_NOMATCH) break;
    if (rc < 0) return absl::ResourceExhaustedError(absl::StrCat("pre-tokeniser: ", pcre2_message(rc)));
    if (span[0] > at) pieces.push_back(text.substr(at, span[0] - at));
    pieces.push_back(text.substr(span[0], span[1] - span[0]));
    at = span[1];
  }
  if (at < text.size()) pieces.push_back(text.substr(at));
  return absl::OkStatus();
}

}  // namespace pkv
