#include "client/summary.h"

#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/report_table.h"
#include "client/utf8.h"

namespace pkv::client {
namespace {

double seconds(const google::protobuf::Duration& duration) {
  return static_cast<double>(duration.seconds()) + duration.nanos() * 1e-9;
}

std::string cache_part(const v1::CacheReport& cache) {
  std::string text = cache.policy_name();
  const auto full = static_cast<double>(cache.full_bytes()), saved = static_cast<double>(cache.saved_bytes());
  if (cache.compressed()) {
    absl::StrAppend(&text, " ", cache.budget_tokens(), ": kept ", human_bytes(static_cast<double>(cache.held_bytes())),
                    " of ", human_bytes(full));
  } else {
    absl::StrAppend(&text, ": kept all ", human_bytes(static_cast<double>(cache.held_bytes())));
  }
  absl::StrAppend(&text, saved > 0 ? absl::StrCat(", saved ", saved_share(saved, full)) : ", nothing saved");
  if (cache.has_recall() && cache.compressed()) absl::StrAppend(&text, "; recall ", percent(cache.recall().mean(), 1));
  return text + "; ";
}

// In quotes, on one line, with nothing in it that could steer a terminal.
std::string quoted(const std::string& text) {
  const bool valid = first_invalid_utf8(text) == std::string::npos;
  return absl::StrCat("\"", valid ? absl::Utf8SafeCHexEscape(text) : absl::CHexEscape(text), "\"");
}

std::string token_line(const v1::TokenLogprob& token) {
  return absl::StrFormat("%8u  %-18s %9.4f  %5.1f %%", token.token_id(), quoted(token.token()), token.logprob(),
                         100 * std::exp(token.logprob()));
}

}  // namespace

std::string answer_summary(const v1::GenerateResponse& reply) {
  std::string text;
  if (reply.has_cache() && reply.cache().logical_tokens() > 0) text = cache_part(reply.cache());
  const uint32_t tokens = reply.usage().completion_tokens();
  if (tokens == 0) return text + "prompt scored";
  absl::StrAppendFormat(&text, "first token %.2f s", seconds(reply.timings().time_to_first_token()));
  const double decode = seconds(reply.timings().decode());
  if (tokens > 1 && decode > 0) absl::StrAppendFormat(&text, ", then %.1f tok/s", (tokens - 1) / decode);
  return text;
}

std::string answer_hint(const v1::GenerateResponse& reply, bool raw, bool has_template) {
  if (reply.choices().empty() || reply.usage().completion_tokens() == 0) return "";
  const v1::Choice& choice = reply.choices(0);
  if (!absl::StripAsciiWhitespace(choice.text()).empty()) {
    if (choice.finish_reason() != v1::FINISH_REASON_LENGTH) return "";
    return absl::StrCat("cut off after ", reply.usage().completion_tokens(), " tokens; --max-tokens (-n) allows more");
  }
  std::string text = "the answer is empty: ";
  if (choice.finish_reason() == v1::FINISH_REASON_LENGTH) return text + "blanks only, up to --max-tokens";
  if (reply.usage().completion_tokens() == 1) {
    absl::StrAppend(&text, "the model's first token, ", quoted(choice.matched_stop()), ", ended it");
  } else {
    absl::StrAppend(&text, quoted(choice.matched_stop()), " ended it before any text came");
  }
  if (raw && has_template) return text + "; without --raw the prompt goes in the model's chat format";
  if (raw) return text + "; the model has no chat format and continues texts: leave one unfinished";
  return text + "; another wording may help, or --min-tokens 8";
}

std::string token_table(const v1::Choice& choice, bool logprobs) {
  if (!logprobs) return absl::StrCat("token ids: ", absl::StrJoin(choice.token_ids(), " "), "\n");
  std::string text = absl::StrFormat("%8s  %-18s %9s  %7s\n", "id", "token", "logprob", "share");
  for (const v1::TokenLogprob& token : choice.logprobs()) {
    absl::StrAppend(&text, token_line(token), "\n");
    for (const v1::TokenLogprob& other : token.top()) absl::StrAppend(&text, "    ", token_line(other), "\n");
  }
  return text;
}

}  // namespace pkv::client
