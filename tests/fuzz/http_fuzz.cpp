// Bodies of OpenAI's API, from their bytes to requests that could be submitted. The first byte says of which endpoint.
#include <string>

#include "server/api/accept.h"
#include "server/http/openai_request.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/served_model.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const auto endpoint = *data % 2 == 0 ? pkv::OpenAiEndpoint::kCompletions : pkv::OpenAiEndpoint::kChat;
  const std::string body(reinterpret_cast<const char*>(data + 1), size - 1);
  const absl::StatusOr<pkv::OpenAiRequest> request = pkv::read_openai_request(body, endpoint);
  if (!request.ok()) return 0;
  pkv::CallInfo info;
  const auto accepted = pkv::accept_request(request->message, pkv::test::served_state(), {}, info);
  if (!accepted.ok()) (void)pkv::about_openai_field(accepted.status(), endpoint);
  return 0;
}
