#include "client/compared_replies.h"

namespace pkv::client {
namespace {

// What the report has of the run that all policies shared.
void clear_common(v1::CacheReport& cache) {
  cache.clear_workspace_bytes();
  cache.clear_held_byte_seconds();
  cache.clear_full_byte_seconds();
}

}  // namespace

std::vector<v1::GenerateResponse> compared_replies(const v1::CompareResponse& comparison) {
  const v1::GenerateResponse& baseline = comparison.baseline();
  std::vector<v1::GenerateResponse> replies{baseline};
  replies[0].clear_timings();
  if (baseline.has_cache()) clear_common(*replies[0].mutable_cache());
  for (const v1::Comparison& rival : comparison.comparisons()) {
    v1::GenerateResponse& reply = replies.emplace_back();
    reply.set_request_id(baseline.request_id());
    reply.set_model(baseline.model());
    reply.set_seed(baseline.seed());
    v1::Choice& choice = *reply.add_choices();
    choice.set_text(rival.text());
    *choice.mutable_token_ids() = rival.token_ids();
    const auto tokens = static_cast<uint32_t>(rival.token_ids_size());
    reply.mutable_usage()->set_prompt_tokens(baseline.usage().prompt_tokens());
    reply.mutable_usage()->set_completion_tokens(tokens);
    reply.mutable_usage()->set_total_tokens(baseline.usage().prompt_tokens() + tokens);
    if (!rival.has_cache()) continue;
    *reply.mutable_cache() = rival.cache();
    clear_common(*reply.mutable_cache());
  }
  return replies;
}

}  // namespace pkv::client
