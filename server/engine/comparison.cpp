// Divergence of distributions and of answers.
#include "server/engine/comparison.h"

#include <algorithm>
#include <cmath>

#include "server/engine/sampler.h"

namespace pkv {
namespace {

std::vector<double> log_softmax(std::span<const float> logits) {
  const double top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - top);
  const double shift = top + std::log(sum);
  std::vector<double> result;
  result.reserve(logits.size());
  for (const float logit : logits) result.push_back(logit - shift);
  return result;
}

}  // namespace

void Comparison::set_baseline(std::span<const float> logits) {
  baseline_ = log_softmax(logits);
  baseline_best_ = argmax(logits);
}

void Comparison::add_place(Rival& rival, std::span<const float> logits) const {
  const std::vector<double> other = log_softmax(logits);
  double kl = 0;
  for (size_t token = 0; token < baseline_.size(); ++token) {
    kl += std::exp(baseline_[token]) * (baseline_[token] - other[token]);
  }
  rival.kl.push_back(std::max(kl, 0.0));  // rounding may leave it a little below
  rival.agreed += argmax(logits) == baseline_best_ ? 1 : 0;
}

void Comparison::start(TokenId first_token) {
  for (Rival& rival : rivals) {
    rival.compressor.reset();
    rival.tokens.push_back(first_token);
    rival.kl.push_back(0);
  }
}

bool Comparison::done() const {
  return std::all_of(rivals.begin(), rivals.end(), [](const Rival& rival) { return rival.ended; });
}

PolicyComparison summarise(const Rival& rival, std::span<const TokenId> answer) {
  PolicyComparison summary{.kl = rival.kl, .tokens = rival.tokens};
  if (const size_t places = rival.kl.size(); places > 1) {
    double sum = 0;
    for (const double kl : rival.kl) sum += kl;  // the first is 0
    summary.kl_mean = sum / static_cast<double>(places - 1);
    summary.top1_agreement = static_cast<double>(rival.agreed) / static_cast<double>(places - 1);
  }
  const auto [mine, theirs] = std::mismatch(rival.tokens.begin(), rival.tokens.end(), answer.begin(), answer.end());
  if (mine != rival.tokens.end() || theirs != answer.end()) {
    summary.first_divergence = static_cast<int32_t>(mine - rival.tokens.begin());
  }
  return summary;
}

}  // namespace pkv
