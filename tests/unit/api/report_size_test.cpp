// That what is said of a reply's size beforehand holds for the largest reply.
#include "server/api/report_size.h"

#include <gtest/gtest.h>

#include <numeric>
#include <utility>
#include <vector>

#include "pyramidkv/v1/generation.pb.h"

namespace pkv {
namespace {

namespace pb = ::pyramidkv::v1;

constexpr int32_t kLayers = 3, kHeads = 2, kMaxTokens = 50;

// Every lane keeps as many.
Contract::Terms terms(int32_t kept, int64_t positions) {
  Contract::Terms terms;
  terms.plan.lane_budgets.assign(size_t{kLayers} * kHeads, kept);
  terms.plan.lane_limits = terms.plan.lane_budgets;
  terms.plan.positions_used = positions;
  return terms;
}

void fill(int32_t kept, int64_t positions, pb::CacheReport& report) {
  std::vector<uint32_t> last(static_cast<size_t>(kept));
  std::iota(last.begin(), last.end(), static_cast<uint32_t>(positions - kept));
  for (int32_t layer = 0; layer < kLayers; ++layer) {
    pb::LayerCache& out = *report.add_layers();
    for (uint32_t head = 0; head < kHeads; ++head) {
      pb::KeptPositions& lane = *out.add_heads();
      lane.set_kv_head(head);
      lane.mutable_positions()->Add(last.begin(), last.end());
      lane.mutable_final_positions()->Add(last.begin(), last.end());
    }
  }
}

TEST(ReportSize, NoReportIsLarger) {
  for (const auto& [kept, positions] : {std::pair{1, int64_t{20}}, {40, 20'000}, {3000, 3'000'000}}) {
    Contract contract;
    contract.own = terms(kept, positions);
    pb::CompareResponse reply;
    fill(kept, positions, *reply.mutable_baseline()->mutable_cache());
    for (int i = 0; i < 2; ++i) {
      contract.rivals.push_back(terms(kept, positions));
      pb::Comparison& rival = *reply.add_comparisons();
      fill(kept, positions, *rival.mutable_cache());
      for (int32_t token = 0; token < kMaxTokens; ++token) rival.add_kl(1);
    }
    const size_t largest = reply.ByteSizeLong();
    EXPECT_GE(most_report_bytes(contract, kHeads, kMaxTokens), largest) << kept;
    EXPECT_LE(most_report_bytes(contract, kHeads, kMaxTokens), largest + size_t{18} * kLayers * kHeads * 3) << kept;
  }
}

TEST(ReportSize, NoAnswerWithLogprobsIsLarger) {
  std::vector<size_t> longest;
  for (size_t bytes = 200; longest.size() < kMaxTopLogprobs; bytes -= 7) longest.push_back(bytes);
  constexpr int32_t kVocab = 150'000;
  for (const int32_t top : {0, 1, 20}) {
    Request request{.prompt = std::vector<TokenId>(30, 5), .logprobs = true, .top_logprobs = top};
    request.prompt_logprobs = true;
    request.sampling.max_tokens = kMaxTokens;
    pb::Choice choice;
    const auto fill_entry = [&](size_t bytes, pb::TokenLogprob& out) {
      out.set_token_id(kVocab - 1);
      out.set_token(std::string(bytes, 'x'));
      out.set_logprob(-1);
    };
    for (int32_t i = 0; i < kMaxTokens + 30; ++i) {
      choice.mutable_text()->append(longest[0], 'x');
      choice.add_token_ids(kVocab - 1);
      pb::TokenLogprob& token = *choice.add_logprobs();
      fill_entry(longest[0], token);
      for (int32_t rank = 0; rank < top; ++rank) fill_entry(longest[static_cast<size_t>(rank)], *token.add_top());
    }
    const size_t largest = choice.ByteSizeLong();
    EXPECT_NEAR(static_cast<double>(most_logprob_bytes(request, longest, kVocab)), static_cast<double>(largest), 16);
  }
}

}  // namespace
}  // namespace pkv
