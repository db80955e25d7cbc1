#include "server/http/openai_request.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "kernels/status_macros.h"
#include "server/api/errors.h"
#include "server/http/openai_fields.h"
#include "server/status/field_error.h"

namespace pkv {
namespace {

namespace pb = ::pyramidkv::v1;

// ---- /v1/completions

bool is_list_of(const Json& value, bool (Json::*is_kind)() const) {
  return value.is_array() && !value.empty() && (value.front().*is_kind)();
}

// A text or a list of token ids; a list of one of these is that one.
absl::Status read_prompt(const Json& value, const std::string& name, OpenAiRequest& request) {
  if (is_list_of(value, &Json::is_string) || is_list_of(value, &Json::is_array)) {
    if (value.size() == 1) return read_prompt(value.front(), name, request);
    return not_built(name, "must be a single prompt; send a request for each");
  }
  if (value.is_string()) return read_value(value, name, *request.message.mutable_prompt());
  if (!value.is_array()) return bad_input(name, "must be a text or a list of token ids");
  pb::TokenIds& ids = *request.message.mutable_prompt_token_ids();
  for (const Json& id : value) {
    uint32_t number = 0;
    PKV_RETURN_IF_ERROR(read_value(id, name, number));
    ids.add_ids(number);
  }
  return absl::OkStatus();
}

// How many of the most likely tokens are listed beside each; 0: none but the token itself.
absl::Status read_listed(const Json& value, const std::string& name, OpenAiRequest& request) {
  uint32_t number = 0;
  PKV_RETURN_IF_ERROR(read_value(value, name, number));
  request.message.mutable_output()->set_logprobs(true);
  request.message.mutable_output()->set_top_logprobs(number);
  return absl::OkStatus();
}

absl::Status read_echo(const Json& value, const std::string& name, OpenAiRequest& request) {
  bool echo = false;
  PKV_RETURN_IF_ERROR(read_value(value, name, echo));
  request.message.mutable_output()->set_echo(echo);
  return absl::OkStatus();
}

const std::array kCompletionFields =
    std::to_array<OpenAiField>({{"prompt", read_prompt}, {"logprobs", read_listed}, {"echo", read_echo}});

// ---- /v1/chat/completions

// Null where there is none. Not a copy: texts may be long.
const Json& member(const Json& object, const char* name) {
  static const Json kNone;
  const auto found = object.find(name);
  return found == object.end() ? kNone : *found;
}

// A text, or parts of which each is one.
absl::Status read_content(const Json& value, const std::string& name, std::string& out) {
  if (value.is_null()) return bad_input(name, "is missing");
  if (!value.is_array()) return read_value(value, name, out);
  for (size_t i = 0; i < value.size(); ++i) {
    const std::string part = absl::StrCat(name, "[", i, "]");
    if (!value[i].is_object()) return bad_input(part, "must be an object");
    if (member(value[i], "type") != "text") return not_built(absl::StrCat(part, ".type"), "must be text");
    std::string text;
    PKV_RETURN_IF_ERROR(read_value(member(value[i], "text"), absl::StrCat(part, ".text"), text));
    out += text;
  }
  return absl::OkStatus();
}

absl::Status read_role(const Json& value, const std::string& name, std::string& out) {
  if (value.is_null()) return bad_input(name, "is missing");
  PKV_RETURN_IF_ERROR(read_value(value, name, out));
  if (out == "tool" || out == "function") {
    return not_built(name, "tools are not called here; write what they gave into a message of the user");
  }
  if (out == "developer") out = "system";  // the newer word for the same
  return absl::OkStatus();
}

constexpr std::array<std::string_view, 6> kRefusedOfMessages = {"tool_calls", "tool_call_id", "function_call",
                                                                "audio",      "refusal",      "annotations"};

// What a message has besides its role and its content. Answers that come back as a part of the chat have much of it
// empty.
absl::Status refuse_rest(const Json& value, const std::string& name, const std::string& key) {
  if (key == "name" || value.is_null() || value == "" || value == Json::array()) return absl::OkStatus();
  if (std::ranges::find(kRefusedOfMessages, key) == kRefusedOfMessages.end()) return unknown_field(name, key);
  return not_built(absl::StrCat(name, ".", key), "messages are a role and a content; write it into that");
}

absl::Status read_chat_message(const Json& value, const std::string& name, pb::ChatMessage& out) {
  if (!value.is_object()) return bad_input(name, "must be an object with role and content");
  PKV_RETURN_IF_ERROR(read_role(member(value, "role"), absl::StrCat(name, ".role"), *out.mutable_role()));
  for (const auto& [key, field] : value.items()) {
    if (key != "role" && key != "content") PKV_RETURN_IF_ERROR(refuse_rest(field, name, key));
  }
  return read_content(member(value, "content"), absl::StrCat(name, ".content"), *out.mutable_content());
}

absl::Status read_messages(const Json& value, const std::string& name, OpenAiRequest& request) {
  if (!value.is_array()) return bad_input(name, "must be a list of messages");
  pb::ChatInput& chat = *request.message.mutable_chat();
  for (size_t i = 0; i < value.size(); ++i) {
    PKV_RETURN_IF_ERROR(read_chat_message(value[i], absl::StrCat(name, "[", i, "]"), *chat.add_messages()));
  }
  return absl::OkStatus();
}

absl::Status read_logprobs(const Json& value, const std::string& name, OpenAiRequest& request) {
  bool wanted = false;
  PKV_RETURN_IF_ERROR(read_value(value, name, wanted));
  request.message.mutable_output()->set_logprobs(wanted);
  return absl::OkStatus();
}

absl::Status read_top_logprobs(const Json& value, const std::string& name, OpenAiRequest& request) {
  uint32_t number = 0;
  PKV_RETURN_IF_ERROR(read_value(value, name, number));
  request.message.mutable_output()->set_top_logprobs(number);
  return absl::OkStatus();
}

absl::Status read_generation_prompt(const Json& value, const std::string& name, OpenAiRequest& request) {
  bool wanted = false;
  PKV_RETURN_IF_ERROR(read_value(value, name, wanted));
  request.message.mutable_chat()->set_add_generation_prompt(wanted);
  return absl::OkStatus();
}

const std::array kChatFields = std::to_array<OpenAiField>({
    {"messages", read_messages},
    {"logprobs", read_logprobs},
    {"top_logprobs", read_top_logprobs},
    {"add_generation_prompt", read_generation_prompt},
});

std::span<const OpenAiField> fields_of(OpenAiEndpoint endpoint) {
  if (endpoint == OpenAiEndpoint::kChat) return kChatFields;
  return kCompletionFields;
}

absl::Status read_field(const std::string& name, const Json& value, OpenAiRequest& request) {
  if (value.is_null() || is_passed_over(name)) return absl::OkStatus();
  for (const std::span<const OpenAiField> fields : {fields_of(request.answer.endpoint), common_fields()}) {
    const auto field = std::ranges::find(fields, name, &OpenAiField::name);
    if (field != fields.end()) return field->read(value, name, request);
  }
  return refuse_field(name, value);
}

}  // namespace

absl::StatusOr<OpenAiRequest> read_openai_request(const std::string& body, OpenAiEndpoint endpoint) {
  PKV_ASSIGN_OR_RETURN(const Json json, parse_json(body));
  if (!json.is_object()) return bad_input("", "the body must be a JSON object");
  OpenAiRequest request{.answer = {.endpoint = endpoint}};
  for (const auto& [name, value] : json.items()) PKV_RETURN_IF_ERROR(read_field(name, value, request));
  if (request.message.input_case() == pb::GenerateRequest::INPUT_NOT_SET) {
    return bad_input(endpoint == OpenAiEndpoint::kChat ? "messages" : "prompt", "is missing");
  }
  request.message.mutable_output()->set_return_token_ids(false);
  return request;
}

absl::Status about_openai_field(const absl::Status& status, OpenAiEndpoint endpoint) {
  const std::optional<FieldError> named = field_error_of(status);
  if (!named) return status;
  const bool listed = endpoint == OpenAiEndpoint::kCompletions && named->field == "output.top_logprobs";
  if (listed) return with_field_moved(status, "output.top_logprobs", "logprobs");
  for (const auto& [from, to] : {std::pair{"sampling.", ""},
                                 {"output.", ""},
                                 {"chat.", ""},
                                 {"prompt_token_ids", "prompt"},
                                 {"request_id", "X-Request-Id"}}) {
    if (absl::StartsWith(named->field, from)) return with_field_moved(status, from, to);
  }
  return named->field == "chat" ? with_field_moved(status, "chat", "messages") : status;
}

}  // namespace pkv
