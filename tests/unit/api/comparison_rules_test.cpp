// The rules of Compare: a greedy baseline, policies that are named by their place.
#include "server/api/comparison_rules.h"

#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>

#include "server/status/field_error.h"
#include "tests/unit/api/api_fixture.h"

namespace pkv {
namespace {

namespace pb = ::pyramidkv::v1;

class ComparisonRulesTest : public ApiTest {
 protected:
  absl::StatusOr<ValidRequest> validate(const std::string& text) {
    pb::CompareRequest message;
    EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &message)) << text;
    return validate_comparison(message, served_, *state_, std::nullopt, {});
  }
  DecodedError refusal(const std::string& text) {
    const absl::StatusOr<ValidRequest> valid = validate(text);
    EXPECT_FALSE(valid.ok()) << text;
    return decode_error(valid.status());
  }
};

TEST_F(ComparisonRulesTest, TheBaselineIsFullAndGreedy) {
  PoliciesConfig config = policies();
  config.default_name = "small";
  state_ = std::make_unique<ServerState>(*PolicyCatalog::create(config, KvDtype::kF16), log_, 7);
  const absl::StatusOr<ValidRequest> valid = validate(
      "request { prompt: 'abc' } policies { preset: 'small' } policies {} policies { tova {} budget { tokens: 9 } }");
  ASSERT_TRUE(valid.ok()) << valid.status();
  EXPECT_EQ(valid->request().policy.kind, PolicyKind::kFull);
  EXPECT_EQ(valid->request().sampling.temperature, 0.0F);
  ASSERT_EQ(valid->request().compare_with.size(), 3u);
  EXPECT_EQ(valid->request().compare_with[0].kind, PolicyKind::kPyramidKv);
  EXPECT_EQ(valid->request().compare_with[1].kind, PolicyKind::kPyramidKv);  // the server's default
  EXPECT_EQ(valid->request().compare_with[2].budget.tokens, 9);
}

TEST_F(ComparisonRulesTest, PoliciesShareTheBaselinesFormatAndChat) {
  const absl::StatusOr<ValidRequest> valid = validate(
      "request { chat { messages { role: 'system' content: 'be brief' } messages { role: 'user' content: 'hi' } } "
      "cache_policy { full {} kv_dtype: KV_DTYPE_F32 } } policies { tova {} pin_system_message: true }");
  ASSERT_TRUE(valid.ok()) << valid.status();
  EXPECT_EQ(valid->request().compare_with[0].kv_dtype, KvDtype::kF32);
  EXPECT_EQ(valid->request().compare_with[0].pins.size(), 1u);
  EXPECT_TRUE(valid->request().policy.pins.empty());
}

TEST_F(ComparisonRulesTest, NumberOfPolicies) {
  std::string text = "request { prompt: 'a' }";
  EXPECT_EQ(refusal(text).field, "policies");
  for (int i = 0; i < kMaxComparisons; ++i) text += " policies { tova {} }";
  EXPECT_TRUE(validate(text).ok());
  EXPECT_EQ(refusal(text + " policies { tova {} }").field, "policies");
}

TEST_F(ComparisonRulesTest, MoreRowsThanMayRunNameTheLimit) {
  engine_.answer = [](const Contract::Query& query) -> absl::StatusOr<Contract> {
    Contract contract;
    if (!query.compare_with.empty()) {
      contract.refusal = Refusal{.reason = Refusal::Reason::kRows, .rows = 5, .max_running = 4};
    }
    return contract;
  };
  const DecodedError error = refusal("request { prompt: 'a' } policies { tova {} } policies { tova {} }");
  EXPECT_EQ(error.code, absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(error.field, "policies");
  EXPECT_EQ(error.metadata.at("max"), "1");
  EXPECT_THAT(error.description, ::testing::HasSubstr("at most 4 (scheduler.max_running): name at most 1"));
}

TEST_F(ComparisonRulesTest, AContinuationSharesTheModelsLength) {
  const auto valid =
      validate("request { prompt: 'abc' sampling { max_tokens: 5 } } policies { tova {} } continuation: 'de'");
  ASSERT_TRUE(valid.ok()) << valid.status();
  const size_t given = valid->request().continuation.size();
  EXPECT_GT(given, 0u);
  EXPECT_EQ(valid->request().sampling.max_tokens, static_cast<int32_t>(given) + 5);

  const auto left = static_cast<int64_t>(served_.shape.max_positions - valid->request().prompt.size());
  const auto asking = [&](int64_t answer) {
    return absl::StrCat("request { prompt: 'abc' sampling { max_tokens: ", answer, " } } policies { tova {} } ",
                        "continuation: 'de'");
  };
  EXPECT_TRUE(validate(asking(left - static_cast<int64_t>(given))).ok());
  const DecodedError error = refusal(asking(left - static_cast<int64_t>(given) + 1));
  EXPECT_EQ(error.field, "continuation");
  EXPECT_EQ(error.reason, "CONTEXT_TOO_LONG");
  const std::string huge(1 << 20, 'x');
  EXPECT_EQ(refusal("request { prompt: 'abc' } policies { tova {} } continuation: '" + huge + "'").field,
            "continuation");
}

struct BadComparison {
  const char* request;
  const char* policies;
  const char* field;
};

class BadComparisons : public ComparisonRulesTest, public ::testing::WithParamInterface<BadComparison> {};

TEST_P(BadComparisons, NameTheField) {
  const std::string text =
      std::string("request { ") + GetParam().request + " } policies { tova {} } " + GetParam().policies;
  const DecodedError error = refusal(text);
  EXPECT_EQ(error.code, absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(error.field, GetParam().field);
  EXPECT_THAT(error.message, ::testing::StartsWith(error.field + ": "));
}

INSTANTIATE_TEST_SUITE_P(
    Comparison, BadComparisons,
    ::testing::Values(
        BadComparison{"", "", "request.prompt"},
        BadComparison{"prompt: 'a' sampling { temperature: 0.5 }", "", "request.sampling.temperature"},
        BadComparison{"prompt: 'a' sampling { temperature: nan }", "", "request.sampling.temperature"},
        BadComparison{"prompt: 'a' sampling { repetition_penalty: 1.1 }", "", "request.sampling.repetition_penalty"},
        BadComparison{"prompt: 'a' sampling { frequency_penalty: 1 }", "", "request.sampling.frequency_penalty"},
        BadComparison{"prompt: 'a' sampling { presence_penalty: 1 }", "", "request.sampling.presence_penalty"},
        BadComparison{"prompt: 'a' sampling { logit_bias { key: 1 value: 1 } }", "", "request.sampling.logit_bias"},
        BadComparison{"prompt: 'a' sampling { stop: 'x' }", "", "request.sampling.stop"},
        BadComparison{"prompt: 'a' sampling { n: 2 }", "", "request.sampling.n"},
        BadComparison{"prompt: 'a' sampling { max_tokens: 0 }", "", "request.sampling.max_tokens"},
        BadComparison{"prompt: 'a' output { echo: true }", "", "request.output.echo"},
        BadComparison{"prompt: 'a' output { logprobs: true }", "", "request.output.logprobs"},
        BadComparison{"prompt: 'a' output { top_logprobs: 1 }", "", "request.output.top_logprobs"},
        BadComparison{"prompt: 'a' output { stream_interval_tokens: 2 }", "", "request.output.stream_interval_tokens"},
        BadComparison{"prompt: 'a' cache_policy { snapkv { kernel_size: 2 } }", "",
                      "request.cache_policy.snapkv.kernel_size"},
        BadComparison{"prompt: 'a' cache_policy { budget { tokens: 64 } }", "", "request.cache_policy.budget"},
        BadComparison{"prompt: 'a'", "policies { snapkv { kernel_size: 2 } }", "policies[1].snapkv.kernel_size"},
        BadComparison{"prompt: 'a'", "policies { tova {} kv_dtype: KV_DTYPE_F32 }", "policies[1].kv_dtype"},
        BadComparison{"prompt: 'a'", "policies { tova {} pin_system_message: true }",
                      "policies[1].pin_system_message"}));

TEST_F(ComparisonRulesTest, AFormatWhosePromptIsReadAlikeMayBeCompared) {
  const auto valid = validate("request { prompt: 'a' } policies { tova {} kv_dtype: KV_DTYPE_K8V4 }");
  ASSERT_TRUE(valid.ok()) << valid.status();
  EXPECT_EQ(valid->request().policy.kv_dtype, KvDtype::kF16);
  EXPECT_EQ(valid->request().compare_with.back().kv_dtype, KvDtype::kK8V4);
}

TEST_F(ComparisonRulesTest, APolicyThatCannotWorkIsNamed) {
  engine_.answer = [](const Contract::Query& query) -> absl::StatusOr<Contract> {
    Contract contract;
    if (query.policy.budget.kind == BudgetKind::kBytes) contract.refusal = Refusal{.reason = Refusal::Reason::kBudget};
    if (!query.policy.pins.empty()) return field_error("cache_policy.pins[0].end", "beyond");
    if (query.compare_with.size() >= 2) contract.refusal = Refusal{.reason = Refusal::Reason::kPool};
    return contract;
  };
  const DecodedError bytes =
      refusal("request { prompt: 'a' } policies { full {} } policies { tova {} budget { bytes: 5 } }");
  EXPECT_EQ(bytes.reason, "CACHE_NEVER_FITS");
  EXPECT_EQ(bytes.field, "policies[1].budget.bytes");
  EXPECT_EQ(refusal("request { prompt: 'a' } policies { tova {} pins { end: 9 } }").field, "policies[0].pins[0].end");
  EXPECT_TRUE(validate("request { prompt: 'a' } policies { tova {} }").ok());
  const DecodedError together = refusal("request { prompt: 'a' } policies { tova {} } policies { tova {} }");
  EXPECT_EQ(together.reason, "CACHE_NEVER_FITS");
  EXPECT_EQ(together.field, "");
}

}  // namespace
}  // namespace pkv
