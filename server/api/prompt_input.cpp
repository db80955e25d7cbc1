// From text, token ids or a chat to the prompt's tokens, and where its system message lies.
#include "server/api/prompt_input.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/status_macros.h"
#include "server/api/admission_check.h"
#include "server/api/errors.h"

namespace pkv {
namespace {

namespace pb = ::pyramidkv::v1;

absl::StatusOr<PromptInput> read_input(const pb::GenerateRequest& message, const ServedModel& served,
                                       const std::stop_token& stop) {
  const Tokenizer& tokenizer = *served.tokenizer;
  PromptInput input;
  absl::StatusOr<std::vector<TokenId>> tokens;
  switch (message.input_case()) {
    case pb::GenerateRequest::kPrompt:
      if (message.prompt().empty()) return bad_input("prompt", "must not be empty");
      tokens = encode_text(message.prompt(), tokenizer, /*add_special=*/true, "prompt", stop);
      break;
    case pb::GenerateRequest::kPromptTokenIds:
      if (message.prompt_token_ids().ids().empty()) return bad_input("prompt_token_ids.ids", "must not be empty");
      tokens = read_token_ids(message.prompt_token_ids().ids(), tokenizer.vocab_size(), "prompt_token_ids.ids");
      break;
    case pb::GenerateRequest::kChat: {
      PKV_ASSIGN_OR_RETURN(RenderedChat chat, render_chat(message.chat(), *served.chat_template, stop));
      input.system_message = {chat.system_begin, chat.system_end};
      tokens = std::move(chat.token_ids);
      break;
    }
    case pb::GenerateRequest::INPUT_NOT_SET:
      return bad_input("prompt", "one of prompt, prompt_token_ids and chat has to be given");
  }
  if (!tokens.ok()) return tokens.status();
  input.tokens = *std::move(tokens);
  return input;
}

absl::Status check_bytes(const pb::GenerateRequest& message, const ServedModel& served, const FrontLimits& limits) {
  if (!message.has_truncate_prompt_tokens()) {
    size_t bytes = message.prompt().size();
    for (const pb::ChatMessage& chat_message : message.chat().messages()) bytes += chat_message.content().size();
    PKV_RETURN_IF_ERROR(check_text_bytes(bytes, served, served.shape.max_positions, input_field(message),
                                         ", or set truncate_prompt_tokens to use its end"));
  }
  const size_t bytes = message.has_chat() ? message.chat().ByteSizeLong() : message.prompt().size();
  return check_text_size(bytes, limits, input_field(message));
}

}  // namespace

absl::StatusOr<PromptInput> read_prompt(const pb::GenerateRequest& message, const ServedModel& served,
                                        const FrontLimits& limits, const std::stop_token& stop) {
  PKV_RETURN_IF_ERROR(check_bytes(message, served, limits));
  absl::StatusOr<PromptInput> input = read_input(message, served, stop);
  if (!input.ok() || !message.has_truncate_prompt_tokens()) return input;
  const size_t keep = message.truncate_prompt_tokens();
  if (keep == 0) return bad_input("truncate_prompt_tokens", "must be at least 1");
  if (input->tokens.size() <= keep) return input;
  const auto cut = static_cast<int32_t>(input->tokens.size() - keep);
  input->tokens.erase(input->tokens.begin(), input->tokens.begin() + cut);
  input->system_message = {std::max(input->system_message.begin - cut, 0),
                           std::max(input->system_message.end - cut, 0)};
  return input;
}

absl::Status check_text_size(size_t bytes, const FrontLimits& limits, const char* field) {
  const uint64_t max = limits.max_text_bytes;
  if (bytes <= max) return absl::OkStatus();
  return make_error({.reason = kBadInput,
                     .field = field,
                     .description = absl::StrCat("has ", bytes, " bytes, and at most ", max,
                                                 " are tokenised (server.max_text_bytes); shorten it"),
                     .metadata = {{"max", std::to_string(max)}, {"got", std::to_string(bytes)}}});
}

absl::Status check_text_bytes(size_t bytes, const ServedModel& served, int64_t max_tokens, const char* field,
                              const char* other_way_out) {
  if (served.longest_tokens.empty()) return absl::OkStatus();
  const auto least = static_cast<int64_t>(bytes / served.longest_tokens.front());
  if (least <= max_tokens) return absl::OkStatus();
  return context_too_long(field, max_tokens, least,
                          absl::StrCat("has ", bytes, " bytes, which are ", least, " tokens at least, and ", max_tokens,
                                       " is all there can be; shorten it", other_way_out));
}

const char* input_field(const pb::GenerateRequest& message) {
  if (message.has_prompt_token_ids()) return "prompt_token_ids";
  return message.has_chat() ? "chat" : "prompt";
}

absl::Status pin_system_message(const pb::GenerateRequest& message, const PromptInput& prompt, PolicySpec& spec) {
  if (!spec.pin_system_message) return absl::OkStatus();
  if (!message.has_chat()) {
    return bad_cache_policy("cache_policy.pin_system_message", "needs chat input, where there are messages");
  }
  const TokenSpan& span = prompt.system_message;
  if (span.begin < span.end) spec.pins.push_back(span);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<TokenId>> read_token_ids(const google::protobuf::RepeatedField<uint32_t>& ids,
                                                    int32_t vocab_size, const std::string& field) {
  std::vector<TokenId> out;
  out.reserve(static_cast<size_t>(ids.size()));
  for (int i = 0; i < ids.size(); ++i) {
    if (ids[i] >= static_cast<uint32_t>(vocab_size)) {
      return bad_input(absl::StrCat(field, "[", i, "]"),
                       absl::StrCat("token id ", ids[i], " is outside the vocabulary of ", vocab_size));
    }
    out.push_back(static_cast<TokenId>(ids[i]));
  }
  return out;
}

absl::StatusOr<RenderedChat> render_chat(const pb::ChatInput& chat, const ChatTemplate& chat_template,
                                         const std::stop_token& stop) {
  if (chat.messages().empty()) return bad_input("chat.messages", "must not be empty");
  std::vector<ChatMessage> messages;
  for (const pb::ChatMessage& message : chat.messages()) messages.push_back({message.role(), message.content()});
  const bool prompt_answer = !chat.has_add_generation_prompt() || chat.add_generation_prompt();
  absl::StatusOr<RenderedChat> rendered = chat_template.render(messages, prompt_answer, stop);
  if (rendered.ok()) {
    if (rendered->token_ids.empty()) return bad_input("chat.messages", "give an empty prompt");
    return rendered;
  }
  if (absl::IsCancelled(rendered.status())) return rendered;
  if (absl::IsInvalidArgument(rendered.status())) return with_reason(rendered.status(), kBadInput, "chat.");
  return with_reason(with_field_moved(rendered.status(), "tokenizer.chat_template", "chat"),
                     chat_template.status().ok() ? kChatTemplateFailed : kNoChatTemplate);
}

absl::StatusOr<std::vector<TokenId>> encode_text(const std::string& text, const Tokenizer& tokenizer, bool add_special,
                                                 const std::string& field, const std::stop_token& stop) {
  absl::StatusOr<std::vector<TokenId>> ids = tokenizer.encode(text, SpecialTokens::kParse, stop);
  if (absl::IsCancelled(ids.status())) return ids;
  if (!ids.ok()) return bad_input(field, std::string(ids.status().message()));
  const std::optional<TokenId> bos = tokenizer.bos();
  if (add_special && bos && (ids->empty() || ids->front() != *bos)) ids->insert(ids->begin(), *bos);
  return ids;
}

}  // namespace pkv
