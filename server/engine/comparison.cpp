// Divergence of distributions and of answers.
#include "server/engine/comparison.h"

#include <algorithm>

namespace pkv {

void Comparison::start(TokenId first_token) {
  for (Rival& rival : rivals) {
    rival.compressor.reset();
    rival.tokens.push_back(first_token);
    rival.kl.push_back(0);
  }
}

size_t Comparison::rows(bool answered) const {
  const auto running = std::count_if(rivals.begin(), rivals.end(), [](const Rival& rival) { return !rival.ended; });
  return static_cast<size_t>(running) + (answered ? 0 : 1 + rivals.size());
}

bool Comparison::done() const {
  return std::all_of(rivals.begin(), rivals.end(), [](const Rival& rival) { return rival.ended; });
}

PolicyComparison summarise(const Comparison::Rival& rival, size_t first_counted, std::span<const TokenId> answer) {
  PolicyComparison summary{.kl = rival.kl, .tokens = rival.tokens};
  if (rival.kl.size() > first_counted) {
    const auto places = static_cast<double>(rival.kl.size() - first_counted);
    double sum = 0;
    for (const double kl : std::span(rival.kl).subspan(first_counted)) sum += kl;
    summary.kl_mean = sum / places;
    summary.top1_agreement = rival.agreed / places;
  }
  const auto [mine, theirs] = std::mismatch(rival.tokens.begin(), rival.tokens.end(), answer.begin(), answer.end());
  if (mine != rival.tokens.end() || theirs != answer.end()) {
    summary.first_divergence = static_cast<int32_t>(mine - rival.tokens.begin());
  }
  return summary;
}

}  // namespace pkv
