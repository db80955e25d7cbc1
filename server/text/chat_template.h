// Chat messages to the model's own prompt format, by running the model's own template.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "server/text/jinja/template.h"
#include "server/text/tokenizer.h"

namespace pkv {

struct ChatMessage {
  std::string role;  // system, user, assistant
  std::string content;
};

// The most messages of one chat. Each is about 750 bytes of values before its rendering has a budget: 3 MB at most.
constexpr size_t kMaxChatMessages = 4096;

struct RenderedChat {
  std::string text;  // the whole prompt, for people
  // Contents are plain text: special tokens written by a user are not parsed. Complete: begin-of-text is there where
  // the template writes it, and is not to be added.
  std::vector<TokenId> token_ids;
  // Tokens [begin, end) from the first to the last with any byte of the first system message the caller wrote; equal:
  // none.
  int32_t system_begin = 0;
  int32_t system_end = 0;
};

// Const and thread-safe.
class ChatTemplate {
 public:
  // `template_text`: tokenizer.chat_template of the model, may be empty. Never fails: status() says whether messages
  // can be rendered.
  ChatTemplate(std::string_view template_text, const Tokenizer& tokenizer);

  // FAILED_PRECONDITION, a field error of tokenizer.chat_template: the model has no template, or one that we cannot
  // run, with the line and column of what we do not know.
  const absl::Status& status() const { return status_; }

  // status() where that is an error. INVALID_ARGUMENT naming the message (messages[2].role) for an unknown role,
  // invalid UTF-8, what the template itself refuses, a system or user message that it leaves out, too many messages,
  // and more work than a template may do. FAILED_PRECONDITION where the template fails. CANCELLED
  // soon after `stop` was requested.
  absl::StatusOr<RenderedChat> render(const std::vector<ChatMessage>& messages, bool add_generation_prompt,
                                      const std::stop_token& stop = {}) const;

 private:
  absl::Status check_nothing_is_lost(const std::vector<ChatMessage>& messages, const jinja::Text& text) const;

  absl::Status status_;
  std::optional<jinja::Template> template_;
  const Tokenizer& tokenizer_;
};

}  // namespace pkv
