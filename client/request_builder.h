// The command line's words as a GenerateRequest.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "client/policy_options.h"
#include "pyramidkv/v1/generation.pb.h"

namespace pkv::client {

// What a caller may say of one request. Unset: the server's default.
struct RequestOptions {
  std::string model;
  std::optional<std::string> prompt;
  std::vector<std::pair<std::string, std::string>> chat;  // role, content

  PolicyOptions cache;

  std::optional<uint32_t> max_tokens, min_tokens, top_k, top_logprobs, truncate_prompt_tokens;
  std::optional<float> temperature, top_p, min_p, repetition_penalty, frequency_penalty, presence_penalty;
  std::optional<uint64_t> seed;
  std::vector<std::string> stop;
  bool ignore_eos = false, logprobs = false, echo = false, token_ids = false;
  std::string report;  // none | summary | layers | positions
};

// Fills `request`. Returns an empty string, or what is wrong with the options.
std::string build_request(const RequestOptions& options, v1::GenerateRequest& request);

}  // namespace pkv::client
