// Bias and penalties change the logits, filters choose the candidates, one uniform number chooses among them.
#include "tests/unit/engine/plain_sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <unordered_map>

namespace pkv::test {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
// top_p ranks this many candidates first and four times as many whenever they do not reach the mass.
constexpr size_t kFirstRanked = 256;

TokenId argmax(std::span<const float> logits) {
  return static_cast<TokenId>(std::max_element(logits.begin(), logits.end()) - logits.begin());  // the first of equals
}

struct Candidate {
  float logit;
  TokenId id;
  double mass = 0;  // exp(logit - best logit)
};

// The order of every ranking here: the better logit, then the smaller id.
bool ranks_before(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

bool in_vocabulary(TokenId id, std::span<const float> logits) {
  return id >= 0 && static_cast<size_t>(id) < logits.size();
}

void apply_bias(std::span<float> logits, const SamplingParams& params) {
  for (const auto& [id, bias] : params.logit_bias) {
    if (in_vocabulary(id, logits)) logits[static_cast<size_t>(id)] += bias;
  }
}

// Divides positive logits and multiplies negative ones, once per distinct token (CTRL, arXiv 1909.05858, section 4.1,
// with the sign taken into account as all servers do).
void apply_repetition_penalty(const PlainInput& input, float penalty) {
  if (penalty == 1) return;
  std::vector<bool> seen(input.logits.size());
  for (const std::span<const TokenId> tokens : {input.prompt, input.generated}) {
    for (const TokenId id : tokens) {
      if (!in_vocabulary(id, input.logits) || seen[static_cast<size_t>(id)]) continue;
      seen[static_cast<size_t>(id)] = true;
      float& logit = input.logits[static_cast<size_t>(id)];
      logit = logit > 0 ? logit / penalty : logit * penalty;
    }
  }
}

void apply_count_penalties(const PlainInput& input, const SamplingParams& params) {
  if (params.frequency_penalty == 0 && params.presence_penalty == 0) return;
  std::unordered_map<TokenId, int32_t> counts;
  for (const TokenId id : input.generated) ++counts[id];
  for (const auto& [id, count] : counts) {
    if (!in_vocabulary(id, input.logits)) continue;
    input.logits[static_cast<size_t>(id)] -=
        params.frequency_penalty * static_cast<float>(count) + params.presence_penalty;
  }
}

// Sorts the best `count` candidates to the front.
void rank(std::vector<Candidate>& candidates, size_t count) {
  count = std::min(count, candidates.size());
  std::partial_sort(candidates.begin(), candidates.begin() + static_cast<std::ptrdiff_t>(count), candidates.end(),
                    ranks_before);
}

void keep_top_k(std::vector<Candidate>& candidates, int32_t top_k) {
  if (top_k <= 0 || static_cast<size_t>(top_k) >= candidates.size()) return;
  rank(candidates, static_cast<size_t>(top_k));
  candidates.resize(static_cast<size_t>(top_k));
}

// The fewest best candidates whose share of the mass reaches top_p (nucleus sampling, arXiv 1904.09751, eq. 2).
void keep_top_p(std::vector<Candidate>& candidates, float top_p) {
  if (top_p >= 1) return;
  double total = 0;
  for (const Candidate& candidate : candidates) total += candidate.mass;
  for (size_t ranked = kFirstRanked;; ranked *= 4) {
    rank(candidates, ranked);
    double sum = 0;
    for (size_t i = 0; i < std::min(ranked, candidates.size()); ++i) {
      sum += candidates[i].mass;
      if (sum >= static_cast<double>(top_p) * total) {
        candidates.resize(i + 1);
        return;
      }
    }
    if (ranked >= candidates.size()) return;
  }
}

void keep_min_p(std::vector<Candidate>& candidates, float min_p) {
  if (min_p <= 0) return;
  // The best candidate has mass 1.
  std::erase_if(candidates, [&](const Candidate& candidate) { return candidate.mass < static_cast<double>(min_p); });
}

TokenId draw(const std::vector<Candidate>& candidates, std::mt19937_64& rng) {
  double total = 0;
  for (const Candidate& candidate : candidates) total += candidate.mass;
  // 53 random bits: std::uniform_real_distribution may differ between standard libraries.
  double left = static_cast<double>(rng() >> 11) * 0x1p-53 * total;
  for (const Candidate& candidate : candidates) {
    left -= candidate.mass;
    if (left < 0) return candidate.id;
  }
  return candidates.back().id;  // rounding ate the last bit of the mass
}

TokenId sample_filtered(std::span<const float> logits, const SamplingParams& params, std::mt19937_64& rng) {
  const TokenId best = argmax(logits);
  const float best_logit = logits[static_cast<size_t>(best)];
  if (!std::isfinite(best_logit)) return best;  // every token is forbidden, or a bias is infinite
  std::vector<Candidate> candidates;
  candidates.reserve(logits.size());
  for (size_t id = 0; id < logits.size(); ++id) {
    if (logits[id] == kMinusInfinity) continue;
    const double exponent = (static_cast<double>(logits[id]) - best_logit) / params.temperature;
    candidates.push_back({logits[id], static_cast<TokenId>(id), std::exp(exponent)});
  }
  keep_top_k(candidates, params.top_k);
  keep_top_p(candidates, params.top_p);
  keep_min_p(candidates, params.min_p);
  return draw(candidates, rng);
}

}  // namespace

TokenId plain_sample(const PlainInput& input, const SamplingParams& params, std::mt19937_64& rng) {
  apply_bias(input.logits, params);
  apply_repetition_penalty(input, params.repetition_penalty);
  apply_count_penalties(input, params);
  for (const TokenId id : input.forbidden) {
    if (in_vocabulary(id, input.logits)) input.logits[static_cast<size_t>(id)] = kMinusInfinity;
  }
  return params.temperature == 0 ? argmax(input.logits) : sample_filtered(input.logits, params, rng);
}

TokenLogprob plain_logprob(std::span<const float> logits, float log_sum_exp, TokenId token, int32_t top) {
  TokenLogprob result{.id = token, .logprob = logits[static_cast<size_t>(token)] - log_sum_exp};
  const size_t count = std::min(static_cast<size_t>(std::max(top, 0)), logits.size());
  if (count == 0) return result;
  std::vector<TokenId> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  std::partial_sort(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(count), ids.end(),
                    [&](TokenId a, TokenId b) {
                      const float logit_a = logits[static_cast<size_t>(a)], logit_b = logits[static_cast<size_t>(b)];
                      return logit_a != logit_b ? logit_a > logit_b : a < b;
                    });
  for (size_t i = 0; i < count; ++i) {
    result.top.emplace_back(ids[i], logits[static_cast<size_t>(ids[i])] - log_sum_exp);
  }
  return result;
}

}  // namespace pkv::test
