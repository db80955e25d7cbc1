// Runs the template on the messages, and looks at what it says of them.
#include "server/text/chat_template.h"

#include <algorithm>
#include <array>
#include <ctime>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/status_macros.h"
#include "server/status/field_error.h"
#include "server/text/chat_tokens.h"
#include "server/text/jinja/characters.h"
#include "server/text/utf8.h"

namespace pkv {
namespace {

using Messages = std::vector<ChatMessage>;

absl::Status unusable(std::string_view problem) {
  return field_error("tokenizer.chat_template",
                     absl::StrCat(std::string(problem), "; send a prompt instead of messages"),
                     absl::StatusCode::kFailedPrecondition);
}

absl::Status check_messages(const Messages& messages) {
  if (messages.empty()) return field_error("messages", "empty");
  if (messages.size() > kMaxChatMessages) {
    return field_error("messages", absl::StrCat(messages.size(), " of them; at most ", kMaxChatMessages, " are read"));
  }
  constexpr std::array<std::string_view, 3> kRoles = {"system", "user", "assistant"};
  for (size_t i = 0; i < messages.size(); ++i) {
    if (std::find(kRoles.begin(), kRoles.end(), messages[i].role) == kRoles.end()) {
      return field_error(absl::StrCat("messages[", i, "].role"), "not one of system, user, assistant");
    }
    if (const auto invalid = find_invalid_utf8(messages[i].content); invalid.has_value()) {
      return field_error(absl::StrCat("messages[", i, "].content"), absl::StrCat("invalid UTF-8 at byte ", *invalid));
    }
  }
  return absl::OkStatus();
}

std::string begin_of_text(const Tokenizer& tokenizer) {
  if (tokenizer.bos().has_value()) return std::string(tokenizer.token_bytes(*tokenizer.bos()));
  for (const std::string_view name : {"<s>", "<|begin_of_text|>"}) {
    const auto id = tokenizer.find_token(name);
    if (id.has_value() && tokenizer.is_special(*id)) return std::string(name);
  }
  return "";
}

// The contents come from the source of their message's number; the roles, which are ours, count as the template's,
// which may make a special token of them.
jinja::Value message_list(const Messages& messages) {
  std::vector<jinja::Value> list;
  for (size_t i = 0; i < messages.size(); ++i) {
    const auto source = static_cast<jinja::Source>(i);
    list.push_back(jinja::Value::dict({{"role", jinja::Value::string(jinja::Text(messages[i].role))},
                                       {"content", jinja::Value::string(jinja::Text(messages[i].content, source))}},
                                      source));
  }
  return jinja::Value::list(std::move(list));
}

// As transformers calls a template, without tools and documents.
jinja::Variables variables(const Messages& messages, bool add_generation_prompt, const Tokenizer& tokenizer) {
  const std::span<const TokenId> ends = tokenizer.end_tokens();
  const std::string_view end = ends.empty() ? std::string_view() : tokenizer.token_bytes(ends[0]);
  return {{"messages", message_list(messages)},
          {"add_generation_prompt", jinja::Value::of(add_generation_prompt)},
          {"bos_token", jinja::Value::string(jinja::Text(begin_of_text(tokenizer)))},
          {"eos_token", jinja::Value::string(jinja::Text(std::string(end)))},
          {"tools", jinja::Value::none()},
          {"documents", jinja::Value::none()}};
}

// A template that can do without today's date gets none, so that a prompt stays the same from day to day.
std::optional<std::tm> date_for(const jinja::Template& chat_template) {
  if (!chat_template.uses("strftime_now") || chat_template.asks_if_defined("strftime_now")) return std::nullopt;
  const std::time_t now = std::time(nullptr);
  std::tm date{};
  gmtime_r(&now, &date);
  return date;
}

absl::Status about_messages(const absl::Status& status) {
  const std::string words(status.message());
  switch (status.code()) {
    case absl::StatusCode::kCancelled:
      return status;
    case absl::StatusCode::kInvalidArgument: {
      const auto item = jinja::refused_item(status);
      const std::string field = item.has_value() ? absl::StrCat("messages[", *item, "]") : "messages";
      return field_error(field, absl::StrCat("refused by the model's chat template: ", words));
    }
    case absl::StatusCode::kResourceExhausted:
      return field_error("messages", absl::StrCat("too much for the model's chat template: ", words,
                                                  "; send fewer or shorter messages, or a prompt"));
    default:
      return unusable(absl::StrCat("the model's chat template fails on these messages: ", words));
  }
}

}  // namespace

ChatTemplate::ChatTemplate(std::string_view template_text, const Tokenizer& tokenizer) : tokenizer_(tokenizer) {
  if (template_text.empty()) {
    status_ = unusable("the model has no chat template");
  } else if (const auto invalid = find_invalid_utf8(template_text); invalid.has_value()) {
    status_ = unusable(absl::StrCat("the model's chat template has invalid UTF-8 at byte ", *invalid));
  } else if (auto parsed = jinja::Template::parse(template_text); parsed.ok()) {
    template_ = *std::move(parsed);
  } else {
    const std::string problem(parsed.status().message());
    status_ = unusable(absl::StrCat("the model's chat template cannot be used: ", problem));
  }
}

// What a system or user message says must not get lost without a word. Of an assistant's, templates leave out thoughts.
absl::Status ChatTemplate::check_nothing_is_lost(const Messages& messages, const jinja::Text& text) const {
  std::vector<bool> written(messages.size());
  for (const jinja::Piece& piece : text.pieces()) {
    if (piece.source != jinja::kTemplate) written[static_cast<size_t>(piece.source)] = true;
  }
  for (size_t i = 0; i < messages.size(); ++i) {
    if (written[i] || messages[i].role == "assistant" || jinja::strip_begin(messages[i].content).empty()) continue;
    return field_error(absl::StrCat("messages[", i, "].role"),
                       absl::StrCat("the model's chat template has no place for this ", messages[i].role, " message"));
  }
  return absl::OkStatus();
}

absl::StatusOr<RenderedChat> ChatTemplate::render(const Messages& messages, bool add_generation_prompt,
                                                  const std::stop_token& stop) const {
  PKV_RETURN_IF_ERROR(status_);
  PKV_RETURN_IF_ERROR(check_messages(messages));
  const auto text =
      template_->render(variables(messages, add_generation_prompt, tokenizer_), date_for(*template_), stop);
  if (!text.ok()) return about_messages(text.status());
  PKV_RETURN_IF_ERROR(check_nothing_is_lost(messages, *text));
  const auto system = std::find_if(messages.begin(), messages.end(),
                                   [](const ChatMessage& message) { return message.role == "system"; });
  return chat_tokens(*text, static_cast<jinja::Source>(system - messages.begin()), tokenizer_, stop);
}

}  // namespace pkv
