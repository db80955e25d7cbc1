// Errors in the form of OpenAI's API: {"error": {"message", "type", "param", "code"}}. `code` is the contract's reason,
// `param` the field, and `metadata` holds the figures.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "server/http/http_message.h"

namespace pkv {

// The same error with `name` as its `param`, which is the caller's own word: for the answer alone, while the field that
// an error is about is logged.
absl::Status with_param(absl::Status status, const std::string& name);

// With the status that goes with the reason, and Retry-After where the error says when.
HttpResponse openai_error(const absl::Status& status);
// The same of what is refused by HTTP alone; 503 says when to come back.
HttpResponse openai_error(int status, std::string_view code, const std::string& message);
// The error of a stream that has begun.
std::string openai_error_event(const absl::Status& status);

}  // namespace pkv
