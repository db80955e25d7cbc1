// A rendered chat as tokens: special tokens where the template writes them, plain text where the messages do.
#pragma once

#include <stop_token>

#include "absl/status/statusor.h"
#include "server/text/chat_template.h"
#include "server/text/jinja/text.h"

namespace pkv {

// `marked`: the source whose tokens become system_begin to system_end. Errors are the tokenizer's.
absl::StatusOr<RenderedChat> chat_tokens(const jinja::Text& text, jinja::Source marked, const Tokenizer& tokenizer,
                                         const std::stop_token& stop);

}  // namespace pkv
