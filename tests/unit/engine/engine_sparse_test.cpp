// Prompts that are read by sparse attention: what is reported, that answers depend on nothing but the request, and who
// is refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "kernels/reference/reference_backend.h"
#include "server/status/field_error.h"
#include "tests/support/tested_backend.h"
#include "tests/unit/engine/engine_fixture.h"

namespace pkv::test {
namespace {

constexpr int32_t kTokens = 610;

PolicySpec sparse(PolicySpec spec, int32_t prefill_tokens = 128) {
  spec.prefill = PrefillAttention::kVerticalSlash;
  spec.prefill_tokens = prefill_tokens;
  return spec;
}

std::shared_ptr<Request> sparse_request(const PolicySpec& spec, bool prompt_logprobs = false) {
  auto request = make_request(random_prompt(kTokens, 3), 5, spec);
  request->prompt_logprobs = prompt_logprobs;
  return request;
}

std::vector<float> logprobs(const RecordingSink& sink) {
  std::vector<float> all;
  for (const TokenLogprob& token : sink.prompt_logprobs) all.push_back(token.logprob);
  for (const TokenLogprob& token : sink.tokens) all.push_back(token.logprob);
  return all;
}

class EngineSparse : public testing::Test {
 protected:
  TinyModel tiny_ = make_tiny_model(make_tested_backend());
};

TEST_F(EngineSparse, ReportsWhatWasComputedAndWhatWasLost) {
  const auto engine = make_engine(*tiny_.model);
  const auto sink = run(*engine, sparse_request(sparse({}), /*prompt_logprobs=*/true));
  ASSERT_EQ(sink->status, absl::OkStatus());
  const std::optional<PrefillReport>& report = sink->result->cache.prefill;
  ASSERT_TRUE(report.has_value());
  // 9 blocks of 64 and a rest; the last two are dense. Of 1 + 2 + ... + 7 pairs of blocks before them, those at the
  // distances 0 and 1 and of block 0 are seen, whatever the pattern.
  constexpr double kAll = kTokens * (kTokens + 1) / 2.0, kBlock = 64 * 64;
  EXPECT_GT(report->attended_share, 1 - 21 * kBlock / kAll);
  EXPECT_LT(report->attended_share, 1);
  EXPECT_EQ(report->measured_rows, tiny_.model->shape().layers);  // row 511 in each
  EXPECT_GT(report->lost_mean, 0);
  EXPECT_GE(report->lost_max, report->lost_mean);
  EXPECT_LE(report->lost_max, 1);
}

// The last layer's rows attend to nothing but for the one that makes the next token.
TEST_F(EngineSparse, OfTheLastLayerNothingIsMeasured) {
  const auto engine = make_engine(*tiny_.model);
  const auto sink = run(*engine, sparse_request(sparse({})));
  ASSERT_EQ(sink->status, absl::OkStatus());
  EXPECT_EQ(sink->result->cache.prefill->measured_rows, tiny_.model->shape().layers - 1);
}

TEST_F(EngineSparse, AShortPromptIsReadDense) {
  const auto engine = make_engine(*tiny_.model);
  const auto whole = run(*engine, sparse_request({}, true));
  const auto same = run(*engine, sparse_request(sparse({}, 2 * kTokens), true));
  ASSERT_EQ(same->status, absl::OkStatus());
  EXPECT_EQ(logprobs(*same), logprobs(*whole));
  EXPECT_EQ(same->result->cache.prefill->attended_share, 1);
  EXPECT_EQ(same->result->cache.prefill->measured_rows, 0);
  EXPECT_FALSE(whole->result->cache.prefill.has_value());
  EXPECT_NE(logprobs(*run(*engine, sparse_request(sparse({}), true))), logprobs(*whole));
}

// Whatever the units a prompt is read in, and whoever else is there.
TEST(EngineSparseUnits, DoNotChangeTheAnswer) {
  const TinyModel tiny = make_tiny_model({.device = "cpu", .exact = true, .threads = 2});
  const PolicySpec specs[] = {sparse({}), sparse(policy(PolicyKind::kSnapKv, 40)),
                              sparse(policy(PolicyKind::kH2o, 60))};
  for (const PolicySpec& spec : specs) {
    const auto request = sparse_request(spec, true);
    EngineOptions options = small_options();
    std::vector<float> expected;
    for (const int32_t rows : {32, 7, 256}) {
      options.prefill_chunk_rows = rows;
      options.step_tokens = std::max(rows, 32);
      const auto engine = make_engine(*tiny.model, options);
      const auto other = submit(*engine, make_request(random_prompt(50, 9), 60));
      const auto sink = run(*engine, request);
      other->wait();
      ASSERT_EQ(sink->status, absl::OkStatus());
      if (expected.empty()) expected = logprobs(*sink);
      EXPECT_EQ(logprobs(*sink), expected) << rows << " rows";
    }
  }
}

TEST_F(EngineSparse, AComparisonReadsItsPromptOnce) {
  const auto engine = make_engine(*tiny_.model);
  auto request = sparse_request(sparse({}));
  request->compare_with = {sparse(policy(PolicyKind::kSnapKv, 64))};
  const auto sink = run(*engine, request);
  ASSERT_EQ(sink->status, absl::OkStatus());
  EXPECT_TRUE(sink->result->cache.prefill.has_value());
  EXPECT_FALSE(sink->result->comparisons[0].cache.prefill.has_value());

  request->compare_with = {policy(PolicyKind::kSnapKv, 64)};
  const absl::Status refused = engine->prepare(request).status();
  ASSERT_TRUE(field_error_of(refused).has_value()) << refused;
  EXPECT_EQ(field_error_of(refused)->field, "cache_policy.prefill");
}

class WithoutPatterns final : public ReferenceBackend {
 public:
  BackendTraits traits() const override { return {}; }
};

TEST(EngineSparseRefusals, NameTheFieldAndTheLimit) {
  const TinyModel with = make_tiny_model(), without = make_tiny_model(std::make_unique<WithoutPatterns>());
  const absl::Status small = make_engine(*with.model)->prepare(sparse_request(sparse({}, 127))).status();
  EXPECT_EQ(small.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(small.message()), testing::HasSubstr("cache_policy.prefill_tokens: must be at least 128"));
  const absl::Status unbuilt = make_engine(*without.model)->prepare(sparse_request(sparse({}))).status();
  EXPECT_EQ(unbuilt.code(), absl::StatusCode::kUnimplemented);
  ASSERT_TRUE(field_error_of(unbuilt).has_value()) << unbuilt;
  EXPECT_EQ(field_error_of(unbuilt)->field, "cache_policy.prefill");
}

}  // namespace
}  // namespace pkv::test
