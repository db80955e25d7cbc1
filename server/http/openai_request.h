// Requests of OpenAI's API as requests of the contract. docs/http.md lists what is taken, passed over and refused.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "pyramidkv/v1/generation.pb.h"

namespace pkv {

enum class OpenAiEndpoint : uint8_t { kCompletions, kChat };

// What only the answer depends on.
struct OpenAiAnswer {
  OpenAiEndpoint endpoint = OpenAiEndpoint::kCompletions;
  bool stream = false;
  bool include_usage = false;  // of a stream: one more message at the end
  bool negative_seed = false;  // as it was given; the contract has its bits
};

struct OpenAiRequest {
  pyramidkv::v1::GenerateRequest message;
  OpenAiAnswer answer;
};

// Errors name the field of the body.
absl::StatusOr<OpenAiRequest> read_openai_request(const std::string& body, OpenAiEndpoint endpoint);

// An error about a field of the message, about the one of the body it came from.
absl::Status about_openai_field(const absl::Status& status, OpenAiEndpoint endpoint);

}  // namespace pkv
