// Filters choose the candidates, one uniform number chooses among them.
#include "server/engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace pkv {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

// NaN counts as -infinity (kernels/sampling.h).
bool possible(float logit) { return logit > kMinusInfinity; }
bool worse(float a, float b) { return possible(b) && !(a >= b); }

struct Candidate {
  float logit;
  TokenId id;
  double mass = 0;  // exp((logit - best logit) / temperature)
};
using Candidates = std::vector<Candidate>;

Candidate candidate(float logit, TokenId id, float best, const SamplingParams& params) {
  return {logit, id, std::exp((static_cast<double>(logit) - best) / params.temperature)};
}

// The order of every ranking: the better logit, then the smaller id.
bool ranks_before(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

void sort_by_id(Candidates& candidates) {
  std::sort(candidates.begin(), candidates.end(), [](const Candidate& a, const Candidate& b) { return a.id < b.id; });
}

// Sorts the best `count` candidates to the front.
void rank(Candidates& candidates, size_t count) {
  count = std::min(count, candidates.size());
  std::partial_sort(candidates.begin(), candidates.begin() + static_cast<std::ptrdiff_t>(count), candidates.end(),
                    ranks_before);
}

double total_mass(const Candidates& candidates) {
  double total = 0;
  for (const Candidate& candidate : candidates) total += candidate.mass;
  return total;
}

// How many of the first `ranked` candidates reach `mass`; nothing: all of them do not.
std::optional<size_t> nucleus(const Candidates& candidates, size_t ranked, double mass) {
  double sum = 0;
  for (size_t i = 0; i < std::min(ranked, candidates.size()); ++i) {
    sum += candidates[i].mass;
    if (sum >= mass) return i + 1;
  }
  return std::nullopt;
}

void keep_top_k(Candidates& candidates, int32_t top_k) {
  if (top_k <= 0 || static_cast<size_t>(top_k) >= candidates.size()) return;
  rank(candidates, static_cast<size_t>(top_k));
  candidates.resize(static_cast<size_t>(top_k));
}

// The fewest best candidates whose share of the mass reaches top_p (nucleus sampling, arXiv 1904.09751, eq. 2).
void keep_top_p(Candidates& candidates, float top_p) {
  if (top_p >= 1) return;
  const double wanted = static_cast<double>(top_p) * total_mass(candidates);
  for (size_t ranked = kMostRanked;; ranked *= 4) {
    rank(candidates, ranked);
    if (const std::optional<size_t> count = nucleus(candidates, ranked, wanted)) return candidates.resize(*count);
    if (ranked >= candidates.size()) return;
  }
}

void keep_min_p(Candidates& candidates, float min_p) {
  if (min_p <= 0) return;
  // The best candidate has mass 1.
  std::erase_if(candidates, [&](const Candidate& candidate) { return candidate.mass < static_cast<double>(min_p); });
}

// In [0, 1), 53 random bits: std::uniform_real_distribution may differ between standard libraries.
double uniform(std::mt19937_64& rng) { return static_cast<double>(rng() >> 11) * 0x1p-53; }

TokenId draw(const Candidates& candidates, std::mt19937_64& rng) {
  double left = uniform(rng) * total_mass(candidates);
  for (const Candidate& candidate : candidates) {
    left -= candidate.mass;
    if (left < 0) return candidate.id;
  }
  return candidates.back().id;  // rounding ate the last bit of the mass
}

// candidates: all that are possible, by id.
TokenId choose_of_all(Candidates& candidates, const SamplingParams& params, std::mt19937_64& rng) {
  keep_top_k(candidates, params.top_k);
  keep_top_p(candidates, params.top_p);
  keep_min_p(candidates, params.min_p);
  return draw(candidates, rng);
}

// Of the best candidates, in order, those that the filters keep of all; false where that cannot be said. `mass`: of
// all.
bool keep_of_best(Candidates& candidates, const SamplingParams& params, double mass) {
  if (params.top_k > 0 && static_cast<size_t>(params.top_k) < candidates.size()) {
    keep_top_k(candidates, params.top_k);
    keep_top_p(candidates, params.top_p);
    keep_min_p(candidates, params.min_p);
    return true;
  }
  if (params.top_p < 1) {
    // The mass is known but for its error; both ends must give the same.
    const auto of = [&](double error) {
      return nucleus(candidates, candidates.size(), static_cast<double>(params.top_p) * (mass * (1 + error)));
    };
    const std::optional<size_t> most = of(kMassError);
    if (!most || most != of(-kMassError)) return false;
    candidates.resize(*most);
    keep_min_p(candidates, params.min_p);
    return true;
  }
  if (params.min_p > 0 && candidates.back().mass < static_cast<double>(params.min_p)) {
    keep_min_p(candidates, params.min_p);
    sort_by_id(candidates);
    return true;
  }
  return false;
}

bool truncates(const SamplingParams& params, int32_t vocabulary) {
  return params.top_k > 0 && params.top_k < vocabulary;
}

bool filters(const SamplingParams& params, int32_t vocabulary) {
  return truncates(params, vocabulary) || params.top_p < 1 || params.min_p > 0;
}

// Every token's mass by id, 0 where it is impossible. Returns their sum.
double weigh_row(std::span<const float> logits, float best, const SamplingParams& params, std::vector<double>& masses) {
  double total = 0;
  masses.resize(logits.size());
  for (size_t id = 0; id < logits.size(); ++id) {
    masses[id] = possible(logits[id]) ? candidate(logits[id], 0, best, params).mass : 0;
    total += masses[id];
  }
  return total;
}

// draw() of all tokens by id, with nothing kept but their masses.
TokenId draw_of_row(std::span<const float> logits, float best, const SamplingParams& params, std::mt19937_64& rng,
                    std::vector<double>& masses) {
  double left = uniform(rng) * weigh_row(logits, best, params, masses);
  size_t last = 0;
  for (size_t id = 0; id < logits.size(); ++id) {
    if (!possible(logits[id])) continue;
    last = id;
    left -= masses[id];
    if (left < 0) break;
  }
  return static_cast<TokenId>(last);
}

// All possible tokens by id that min_p keeps.
Candidates likely(std::span<const float> logits, float best, const SamplingParams& params) {
  Candidates candidates;
  for (size_t id = 0; id < logits.size(); ++id) {
    if (!possible(logits[id])) continue;
    const Candidate one = candidate(logits[id], static_cast<TokenId>(id), best, params);
    if (one.mass >= static_cast<double>(params.min_p)) candidates.push_back(one);
  }
  return candidates;
}

// The tokens by rank that top_p keeps, of all.
Candidates nucleus_of_row(std::span<const uint64_t> ranked, std::span<const float> logits, float best,
                          const SamplingParams& params, std::vector<double>& masses) {
  const double wanted = static_cast<double>(params.top_p) * weigh_row(logits, best, params, masses);
  double sum = 0;
  Candidates candidates;
  for (size_t i = 0; i < ranked.size() && (i == 0 || sum < wanted); ++i) {
    const TokenId id = token_of(ranked[i]);
    candidates.push_back({logits[static_cast<size_t>(id)], id, masses[static_cast<size_t>(id)]});
    sum += candidates.back().mass;
  }
  return candidates;
}

// The tokens that top_k and top_p keep: by rank where one of them keeps less than all.
Candidates best_of_row(std::span<const float> logits, float best, const SamplingParams& params, RowScratch& scratch) {
  const std::span<const uint64_t> ranked = rank_row(logits, scratch);
  if (!truncates(params, static_cast<int32_t>(ranked.size()))) {
    return params.top_p < 1 ? nucleus_of_row(ranked, logits, best, params, scratch.masses)
                            : likely(logits, best, params);
  }
  Candidates candidates;
  for (const uint64_t one : ranked.first(static_cast<size_t>(params.top_k))) {
    candidates.push_back(candidate(logits[static_cast<size_t>(token_of(one))], token_of(one), best, params));
  }
  keep_top_p(candidates, params.top_p);
  return candidates;
}

}  // namespace

SampleNeed sample_need(const SamplingParams& params, int32_t vocabulary) {
  if (params.temperature == 0) return {.ranked = 1};
  const int32_t most = std::min(kMostRanked, vocabulary);
  if (truncates(params, vocabulary)) {
    // One more than are kept, so that it is known that others are left.
    return params.top_k < most ? SampleNeed{.ranked = params.top_k + 1} : SampleNeed{.may_need_row = true};
  }
  if (!filters(params, vocabulary)) return {.may_need_row = true};
  const float scale = params.top_p < 1 ? 1.0f / params.temperature : 0;
  if (!std::isfinite(scale)) return {.may_need_row = true};
  return {.ranked = most, .mass_scale = scale, .may_need_row = most < vocabulary};
}

std::optional<TokenId> choose_of_best(const RankedRow& row, const SamplingParams& params, std::mt19937_64& rng) {
  if (row.best.empty()) return std::nullopt;
  const RankedToken& best = row.best.front();
  if (params.temperature == 0) return best.token;
  if (!std::isfinite(best.logit)) return best.token;  // every token is forbidden, or a bias is infinite
  Candidates candidates;
  candidates.reserve(row.best.size());
  for (const RankedToken& one : row.best) {
    if (!possible(one.logit)) break;
    candidates.push_back(candidate(one.logit, one.token, best.logit, params));
  }
  const bool all = candidates.size() < row.best.size() || static_cast<int32_t>(row.best.size()) == row.vocabulary;
  if (all) {
    sort_by_id(candidates);
    return choose_of_all(candidates, params, rng);
  }
  if (!keep_of_best(candidates, params, row.mass)) return std::nullopt;
  return draw(candidates, rng);
}

TokenId choose_of_row(std::span<const float> logits, const SamplingParams& params, std::mt19937_64& rng,
                      RowScratch& scratch) {
  const auto found = std::max_element(logits.begin(), logits.end(), worse);  // the first of equals
  const float best = *found;
  if (params.temperature == 0 || !std::isfinite(best)) return static_cast<TokenId>(found - logits.begin());
  const bool ranks = truncates(params, static_cast<int32_t>(logits.size())) || params.top_p < 1;
  if (!ranks && params.min_p <= 0) return draw_of_row(logits, best, params, rng, scratch.masses);
  if (!ranks) return draw(likely(logits, best, params), rng);
  Candidates candidates = best_of_row(logits, best, params, scratch);
  keep_min_p(candidates, params.min_p);
  return draw(candidates, rng);
}

}  // namespace pkv
