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

bool Comparison::done() const {
  return std::all_of(rivals.begin(), rivals.end(), [](const Rival& rival) { return rival.ended; });
}

PolicyComparison summarise(const Comparison::Rival& rival, std::span<const TokenId> answer) {
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
