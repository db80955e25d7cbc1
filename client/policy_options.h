// The command line's words about a cache policy as a CachePolicy: names, budgets, pins, parameters, and the compact
// notation of lists (pyramidkv:128).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "client/sizes.h"
#include "pyramidkv/v1/cache.pb.h"

namespace pkv::client {

namespace v1 = ::pyramidkv::v1;

// What a caller may say of a cache policy. Unset: the server's default.
struct PolicyOptions {
  std::string policy;     // a policy's name, or else a preset's
  std::string preset;     // a preset of the server's configuration, also one that is named like a policy
  std::string budget;     // see parse_budget
  std::string scope;      // prompt | total
  std::string max_bytes;  // ceiling beside a budget by recall, see parse_bytes
  std::string kv_dtype;   // f16 | bf16 | f32 | k8v4
  std::string prefill;    // dense | vertical_slash
  std::optional<uint32_t> prefill_tokens;
  std::vector<std::string> params;  // key=value: fields of the policy's message
  std::vector<std::string> pins;    // BEGIN:END, positions of the prompt, END excluded
  std::optional<uint32_t> interval_tokens;
  bool pin_system = false;
  bool allow_shortfall = false;
};

// Fills `policy`, which stays empty where nothing was said. Returns an empty string, or what is wrong with the options.
// A name that is no policy's becomes a preset: only the server knows those.
std::string build_policy(const PolicyOptions& options, v1::CachePolicy& policy);

// Names of the policies in the contract, in the order of their field numbers.
std::vector<std::string> policy_names();

// "128" tokens; "12%" or "12.5%" of the prompt; "4MiB" bytes (see parse_bytes); "recall:0.95" share of the observed
// attention. Returns an empty string or what is wrong.
std::string parse_budget(const std::string& text, v1::CacheBudget& budget);

// A policy of a list, with the words that named it.
struct NamedPolicy {
  std::string text;
  v1::CachePolicy policy;
};

// A list of NAME[:BUDGET[:SCOPE[:FORMAT]]] separated by commas, e.g.
// "full,pyramidkv:128,snapkv:12%,h2o:4MiB,tova:64:total". `common` holds for every policy of the list that does not say
// otherwise; of it `full` takes the entry format only, for it has no budget. Returns an empty string or what is wrong.
std::string parse_policies(const std::string& list, const PolicyOptions& common, std::vector<NamedPolicy>& policies);

// One line with everything that is set: "pyramidkv, budget 128 entries per head, scope prompt, window_tokens=8,
// beta=20".
std::string describe_policy(const v1::CachePolicy& policy);

}  // namespace pkv::client
