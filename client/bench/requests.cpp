// Draws policy, lengths and place in the text, in this order.
#include "client/bench/requests.h"

#include <algorithm>
#include <random>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace pkv::client {
namespace {

WeightedChoice choice_of(const std::vector<BenchPolicy>& mix, size_t drawn) {
  std::vector<uint32_t> weights;
  for (size_t i = 0; i < drawn; ++i) weights.push_back(mix[i].weight);
  return WeightedChoice(weights);
}

}  // namespace

void PromptPool::fill(int64_t count, WorkloadRandom& random, v1::TokenIds& ids) const {
  const int64_t wanted = std::min(count, int64_t{max_model_len} + 1);
  for (uint32_t id : prefix) {
    if (ids.ids_size() < wanted) ids.add_ids(id);
  }
  const int64_t size = static_cast<int64_t>(tokens.size());
  int64_t place = size == 0 ? 0 : random.number(0, size - 1);
  while (ids.ids_size() < wanted) {
    if (size == 0) {
      ids.add_ids(static_cast<uint32_t>(random.number(0, int64_t{vocab_size} - 1)));
    } else {
      ids.add_ids(tokens[static_cast<size_t>(place)]);
      if (++place == size) place = 0;
    }
  }
}

BenchRequests::BenchRequests(const BenchPlan& plan, const PromptPool& pool, const std::vector<TraceLine>& trace,
                             const std::vector<BenchPolicy>& mix, size_t drawn)
    : plan_(plan), pool_(pool), trace_(trace), mix_(mix), choice_(choice_of(mix, drawn)) {
  std::random_device device;
  run_ = absl::StrFormat("bench-%08x%08x-", device(), device());
}

BenchRequests::Made BenchRequests::make(uint64_t index) const {
  WorkloadRandom random(plan_.seed, index);
  Made made{.policy = choice_.sample(random)};
  int64_t prompt_tokens = plan_.prompt_tokens.sample(random), max_tokens = plan_.max_tokens.sample(random);
  v1::GenerateRequest& request = made.request;
  if (!trace_.empty()) {
    const TraceLine& line = trace_[index];
    made.policy = line.policy.value_or(made.policy);
    prompt_tokens = line.prompt_tokens.value_or(prompt_tokens);
    max_tokens = line.max_tokens.value_or(max_tokens);
    if (line.prompt) request.set_prompt(*line.prompt);
  }
  if (!request.has_prompt()) pool_.fill(prompt_tokens, random, *request.mutable_prompt_token_ids());
  request.set_request_id(absl::StrCat(run_, index));
  request.set_model(plan_.model);
  auto& sampling = *request.mutable_sampling();
  sampling.set_temperature(0);
  sampling.set_max_tokens(static_cast<uint32_t>(max_tokens));
  sampling.set_ignore_eos(plan_.ignore_eos);
  if (mix_[made.policy].policy.ByteSizeLong() > 0) *request.mutable_cache_policy() = mix_[made.policy].policy;
  return made;
}

}  // namespace pkv::client
