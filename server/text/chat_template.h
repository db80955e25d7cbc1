// Chat messages to the model's own prompt format. The format is recognised from the model's template text; one that is
// not known is refused with a clear message instead of guessed.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "server/text/chat_format.h"
#include "server/text/tokenizer.h"

namespace pkv {

struct ChatMessage {
  std::string role;  // system, user, assistant
  std::string content;
};

struct RenderedChat {
  std::string text;  // the whole prompt, for people
  // Contents are plain text: special tokens written by a user are not parsed. Complete: begin-of-text is there where
  // the template writes it, and is not to be added.
  std::vector<TokenId> token_ids;
  // Tokens [begin, end) with any byte of the first system message the caller wrote; equal: none.
  int32_t system_begin = 0;
  int32_t system_end = 0;
};

class ChatTemplate {
 public:
  // `template_text`: tokenizer.chat_template of the model, may be empty. Never fails: a missing or unknown template
  // makes render() say so.
  ChatTemplate(std::string template_text, const Tokenizer& tokenizer);

  // chatml, llama2, llama3, mistral; empty: none or unknown.
  std::string_view name() const;

  // FAILED_PRECONDITION where the model has no or an unknown template; INVALID_ARGUMENT naming the message
  // (messages[2].role) for an unknown role, a wrong order or invalid UTF-8.
  absl::StatusOr<RenderedChat> render(const std::vector<ChatMessage>& messages, bool add_generation_prompt) const;

 private:
  std::shared_ptr<const ChatFormat> format_;  // null: none or unknown
  bool has_template_;
  const Tokenizer& tokenizer_;
};

}  // namespace pkv
