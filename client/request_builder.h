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
  std::string model, request_id;
  std::optional<std::string> prompt;
  std::vector<std::pair<std::string, std::string>> chat;  // role, content

  PolicyOptions cache;

  std::optional<uint32_t> max_tokens, min_tokens, top_k, top_logprobs, truncate_prompt_tokens;
  std::optional<int32_t> priority;
  std::optional<float> temperature, top_p, min_p, repetition_penalty, frequency_penalty, presence_penalty;
  std::optional<uint64_t> seed;
  std::vector<std::string> stop;
  std::vector<uint32_t> stop_ids;
  std::vector<std::string> logit_bias;  // see parse_logit_bias
  bool ignore_eos = false, logprobs = false, echo = false, token_ids = false;
  std::string report;  // none | summary | layers | positions
};

// "ID:VALUE", or "ID+VALUE" and "ID-VALUE" as llama.cpp's users write it. Returns an empty string or what is wrong.
std::string parse_logit_bias(const std::string& text, v1::SamplingParams& sampling);

// "7"; "-1" is a random one, which is what an unset `seed` means. Returns an empty string or what is wrong.
std::string parse_seed(const std::string& text, std::optional<uint64_t>& seed);

// Temperature 0 where nothing says how to sample: neither a temperature nor top_p, top_k, min_p or a seed.
void greedy_unless_asked(RequestOptions& options);

// Fills `request`. Returns an empty string, or what is wrong with the options.
std::string build_request(const RequestOptions& options, v1::GenerateRequest& request);

}  // namespace pkv::client
