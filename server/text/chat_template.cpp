// Writes messages in a model's chat format, as text and as tokens.
#include "server/text/chat_template.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/status_macros.h"
#include "server/status/field_error.h"
#include "server/text/utf8.h"

namespace pkv {
namespace {

using Messages = std::vector<ChatMessage>;

// Collects a prompt. Text between two special tokens becomes tokens as one run, wherever it comes from: pieces and
// merges may cross from the template's text into a content.
class PromptWriter {
 public:
  explicit PromptWriter(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {
    for (const std::string_view marker : kChatMarkers) {
      const auto id = tokenizer.find_token(marker);
      if (id.has_value() && tokenizer.is_special(*id)) markers_.push_back({marker, *id});
    }
  }

  // The template's own text, in which the formats' special tokens are parsed.
  void write_markup(std::string_view text) {
    while (!text.empty()) {
      size_t begin = text.size();
      const Marker* first = nullptr;
      for (const Marker& marker : markers_) {
        const size_t found = text.find(marker.text);
        if (found < begin) {
          begin = found;
          first = &marker;
        }
      }
      write_text(text.substr(0, begin));
      if (first == nullptr) return;
      write_token(first->id);
      text.remove_prefix(begin + first->text.size());
    }
  }

  void write_text(std::string_view text) { run_ += text; }

  void write_token(TokenId id) {
    end_run();
    prompt_.text += tokenizer_.token_bytes(id);
    prompt_.token_ids.push_back(id);
  }

  void write_system_content(std::string_view text) {
    if (!has_system_) {
      has_system_ = true;
      run_system_ = {run_.size(), run_.size() + text.size()};
    }
    write_text(text);
  }

  absl::StatusOr<RenderedChat> finish() {
    end_run();
    if (!status_.ok()) return status_;
    return std::move(prompt_);
  }

 private:
  struct Marker {
    std::string_view text;
    TokenId id;
  };

  void end_run() {
    if (run_.empty()) return;
    const auto encoded = tokenizer_.encode_with_offsets(run_, SpecialTokens::kPlainText);
    if (!encoded.ok()) {
      status_.Update(encoded.status());
      return;
    }
    if (run_system_.has_value() && run_system_->first < run_system_->second) mark_system(encoded->begins);
    prompt_.text += run_;
    prompt_.token_ids.insert(prompt_.token_ids.end(), encoded->ids.begin(), encoded->ids.end());
    run_.clear();
    run_system_.reset();
  }

  // The tokens of the system content, of whose first and last a part may belong to the template.
  void mark_system(const std::vector<uint32_t>& begins) {
    if (begins.empty()) return;
    const auto [system_begin, system_end] = *run_system_;
    auto first = std::upper_bound(begins.begin(), begins.end(), system_begin);
    if (first != begins.begin()) first = std::lower_bound(begins.begin(), first, *(first - 1));
    const auto end = std::lower_bound(first, begins.end(), system_end);
    const auto base = static_cast<int32_t>(prompt_.token_ids.size());
    prompt_.system_begin = base + static_cast<int32_t>(first - begins.begin());
    prompt_.system_end = base + static_cast<int32_t>(end - begins.begin());
  }

  const Tokenizer& tokenizer_;
  std::vector<Marker> markers_;
  RenderedChat prompt_;
  std::string run_;
  bool has_system_ = false;
  std::optional<std::pair<size_t, size_t>> run_system_;  // bytes of run_
  absl::Status status_;
};

absl::Status role_error(size_t index, std::string_view problem) {
  return field_error(absl::StrCat("messages[", index, "].role"), std::string(problem));
}

absl::Status check_messages(const Messages& messages) {
  if (messages.empty()) return field_error("messages", "empty");
  constexpr std::array<std::string_view, 3> kRoles = {"system", "user", "assistant"};
  for (size_t i = 0; i < messages.size(); ++i) {
    if (std::find(kRoles.begin(), kRoles.end(), messages[i].role) == kRoles.end()) {
      return role_error(i, "not one of system, user, assistant");
    }
    if (const auto invalid = find_invalid_utf8(messages[i].content); invalid.has_value()) {
      return field_error(absl::StrCat("messages[", i, "].content"), absl::StrCat("invalid UTF-8 at byte ", *invalid));
    }
  }
  return absl::OkStatus();
}

std::string_view content_of(const ChatMessage& message, bool trim) {
  return trim ? strip_whitespace(message.content) : std::string_view(message.content);
}

std::optional<TokenId> begin_of_text(const Tokenizer& tokenizer) {
  if (tokenizer.bos().has_value()) return tokenizer.bos();
  for (const std::string_view name : {"<s>", "<|begin_of_text|>"}) {
    const auto id = tokenizer.find_token(name);
    if (id.has_value() && tokenizer.is_special(*id)) return id;
  }
  return std::nullopt;
}

void render_headers(const ChatFormat& format, const Messages& messages, bool generate, PromptWriter& out) {
  auto header = [&](std::string_view role) {
    out.write_markup(format.header_open);
    out.write_text(role);
    out.write_markup(format.header_close);
  };
  size_t first = 0;
  const bool has_system = messages[0].role == "system";
  if (!format.system_preamble.empty()) {
    header("system");
    out.write_text(format.system_preamble);
    if (has_system) out.write_system_content(strip_whitespace(messages[0].content));
    out.write_markup(format.close);
    first = has_system ? 1 : 0;
  } else if (!has_system && !format.default_system.empty()) {
    header("system");
    out.write_markup(format.default_system);
    out.write_markup(format.close);
  }
  for (size_t i = first; i < messages.size(); ++i) {
    const bool trim = messages[i].role == "assistant" ? format.trim_assistant : format.trim_user;
    const std::string_view content = content_of(messages[i], trim);
    header(messages[i].role);
    if (messages[i].role == "system") {
      out.write_system_content(content);
    } else {
      out.write_text(content);
    }
    out.write_markup(format.close);
  }
  if (generate) header("assistant");
}

absl::Status check_alternation(const ChatFormat& format, const Messages& messages) {
  const size_t first = messages[0].role == "system" ? 1 : 0;
  if (first == 1 && format.system_place == ChatFormat::SystemPlace::kNone) {
    return role_error(0, "the model's chat template has no place for a system message");
  }
  if (first == messages.size()) return role_error(0, "a system message alone; a user message must follow");
  for (size_t i = first; i < messages.size(); ++i) {
    const std::string_view expected = (i - first) % 2 == 0 ? "user" : "assistant";
    if (messages[i].role == expected) continue;
    return role_error(
        i, absl::StrCat("must be ", std::string(expected), "; in this model's chats user and assistant alternate"));
  }
  const bool into_last = first == 1 && format.system_place == ChatFormat::SystemPlace::kLastUser;
  if (into_last && messages.back().role != "user") {
    return role_error(messages.size() - 1, "must be user: this model's system message stands in the last user message");
  }
  return absl::OkStatus();
}

// A user's message with the system message in it.
void write_user_with_system(const ChatFormat& format, std::string_view system, std::string_view user,
                            PromptWriter& out) {
  out.write_text(format.system_open);
  out.write_system_content(system);
  if (format.system_open.empty() || !format.trim_user) {
    out.write_text(format.system_close);
    out.write_text(format.trim_user ? strip_whitespace(user) : user);
    return;
  }
  // Llama 2 trims the two together: the user's leading white space stays.
  const std::string joined = format.system_open + format.system_close + std::string(user);
  out.write_text(strip_whitespace(joined).substr(format.system_open.size()));
}

void render_alternating(const ChatFormat& format, const Messages& messages, const Tokenizer& tokenizer,
                        PromptWriter& out) {
  const std::optional<TokenId> bos = begin_of_text(tokenizer);
  const size_t first = messages[0].role == "system" ? 1 : 0;
  size_t system_at = messages.size();  // the message that takes the system message
  if (first == 1) system_at = format.system_place == ChatFormat::SystemPlace::kLastUser ? messages.size() - 1 : 1;
  for (size_t i = first; i < messages.size(); ++i) {
    if (messages[i].role == "assistant") {
      out.write_text(format.assistant_open);
      out.write_text(content_of(messages[i], format.trim_assistant));
      out.write_text(format.assistant_close);
      out.write_token(tokenizer.end_tokens()[0]);
      out.write_text(format.after_end);
      continue;
    }
    if (format.bos_each_turn && bos.has_value()) out.write_token(*bos);
    out.write_markup(format.user_open);
    if (i == system_at) {
      write_user_with_system(format, messages[0].content, messages[i].content, out);
    } else {
      out.write_text(content_of(messages[i], format.trim_user));
    }
    out.write_markup(format.user_close);
  }
}

}  // namespace

ChatTemplate::ChatTemplate(std::string template_text, const Tokenizer& tokenizer)
    : has_template_(!template_text.empty()), tokenizer_(tokenizer) {
  if (auto format = recognise_chat_format(template_text); format.has_value()) {
    format_ = std::make_shared<const ChatFormat>(*std::move(format));
  }
}

std::string_view ChatTemplate::name() const { return format_ == nullptr ? std::string_view() : format_->name; }

absl::StatusOr<RenderedChat> ChatTemplate::render(const Messages& messages, bool add_generation_prompt) const {
  if (format_ == nullptr) {
    return field_error("tokenizer.chat_template",
                       has_template_ ? "this model's chat template is not one of chatml, llama2, llama3, mistral; "
                                       "send a prompt instead of messages"
                                     : "the model has no chat template; send a prompt instead of messages",
                       absl::StatusCode::kFailedPrecondition);
  }
  PKV_RETURN_IF_ERROR(check_messages(messages));
  PromptWriter out(tokenizer_);
  const std::optional<TokenId> bos = begin_of_text(tokenizer_);
  if (format_->bos_first && bos.has_value()) out.write_token(*bos);
  switch (format_->shape) {
    case ChatFormat::Shape::kHeaders:
      render_headers(*format_, messages, add_generation_prompt, out);
      break;
    case ChatFormat::Shape::kAlternating:
      PKV_RETURN_IF_ERROR(check_alternation(*format_, messages));
      render_alternating(*format_, messages, tokenizer_, out);
      break;
  }
  return out.finish();
}

}  // namespace pkv
