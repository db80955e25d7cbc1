// From a message's text, token ids or chat to the prompt's tokens. Errors name the field (errors.h), but for CANCELLED:
// soon after a `stop` was requested.
#pragma once

#include <cstdint>
#include <stop_token>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "pyramidkv/v1/generation.pb.h"
#include "server/api/server_state.h"
#include "server/engine/request.h"

namespace pkv {

// A prompt as it is used.
struct PromptInput {
  std::vector<TokenId> tokens;
  TokenSpan system_message;  // of a chat, what truncation left of it; empty: there is none
};

// The prompt with truncate_prompt_tokens applied. Before anything is tokenised: CONTEXT_TOO_LONG where its text cannot
// be as few tokens as the model has positions, and as check_text_size().
absl::StatusOr<PromptInput> read_prompt(const pyramidkv::v1::GenerateRequest& message, const ServedModel& served,
                                        const FrontLimits& limits, const std::stop_token& stop);
// Tokenising is work by the byte. BAD_INPUT: there are more than max_text_bytes of them.
absl::Status check_text_size(size_t bytes, const FrontLimits& limits, const char* field);
// CONTEXT_TOO_LONG: a text of so many bytes cannot be `max_tokens` tokens or fewer.
absl::Status check_text_bytes(size_t bytes, const ServedModel& served, int64_t max_tokens, const char* field,
                              const char* other_way_out = "");
// The field that a prompt came in.
const char* input_field(const pyramidkv::v1::GenerateRequest& message);
// Adds the system message to the pins where the policy asks for it; BAD_CACHE_POLICY where the input is no chat.
absl::Status pin_system_message(const pyramidkv::v1::GenerateRequest& message, const PromptInput& prompt,
                                PolicySpec& spec);

// Token ids in range, field path `field`[i] otherwise.
absl::StatusOr<std::vector<TokenId>> read_token_ids(const google::protobuf::RepeatedField<uint32_t>& ids,
                                                    int32_t vocab_size, const std::string& field);

// A chat as its prompt. Errors below "chat".
absl::StatusOr<RenderedChat> render_chat(const pyramidkv::v1::ChatInput& chat, const ChatTemplate& chat_template,
                                         const std::stop_token& stop);

// `text` with its special tokens parsed; with the begin-of-text token in front where the model wants one, `add_special`
// is set and the text does not bring its own.
absl::StatusOr<std::vector<TokenId>> encode_text(const std::string& text, const Tokenizer& tokenizer, bool add_special,
                                                 const std::string& field, const std::stop_token& stop);

}  // namespace pkv
