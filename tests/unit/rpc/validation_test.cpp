// Every rule for requests: what is refused names its field, and what is accepted has its defaults.
#include "server/rpc/validation.h"

#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>

#include "tests/unit/rpc/rpc_fixture.h"

namespace pkv {
namespace {

namespace pb = ::pyramidkv::v1;
using ::testing::Contains;
using ::testing::ElementsAre;

class ValidationTest : public RpcTest {
 protected:
  absl::StatusOr<ValidRequest> validate(const std::string& text) {
    pb::GenerateRequest message;
    EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &message)) << text;
    return validate_request(message, served_, *state_, std::nullopt);
  }
  DecodedError refusal(const std::string& text) {
    const absl::StatusOr<ValidRequest> valid = validate(text);
    EXPECT_FALSE(valid.ok()) << text;
    return decode_error(valid.status());
  }
};

TEST_F(ValidationTest, Defaults) {
  const absl::StatusOr<ValidRequest> valid = validate("prompt: 'abc'");
  ASSERT_TRUE(valid.ok()) << valid.status();
  const Request& request = *valid->request;
  EXPECT_EQ(request.sampling.temperature, 1.0F);
  EXPECT_EQ(request.sampling.top_p, 1.0F);
  EXPECT_EQ(request.sampling.max_tokens,
            kMaxPositions - static_cast<int32_t>(request.prompt.size()));  // 256 would not fit
  EXPECT_EQ(request.policy.kind, PolicyKind::kFull);
  EXPECT_THAT(request.end_tokens, Contains(test::kTinyEndToken));
  EXPECT_FALSE(request.logprobs);
  EXPECT_FALSE(request.id.empty());
  EXPECT_EQ(valid->report, ReportDetail::kSummary);
  EXPECT_TRUE(valid->output.return_token_ids);
}

TEST_F(ValidationTest, UnsetSeedsAndIdsDiffer) {
  const absl::StatusOr<ValidRequest> a = validate("prompt: 'abc'"), b = validate("prompt: 'abc'");
  ASSERT_TRUE(a.ok() && b.ok());
  EXPECT_NE(a->request->sampling.seed, b->request->sampling.seed);
  EXPECT_NE(a->request->id, b->request->id);
  EXPECT_EQ(validate("prompt: 'abc' sampling { seed: 0 }")->request->sampling.seed, 0u);
}

TEST_F(ValidationTest, EverythingIsTaken) {
  const absl::StatusOr<ValidRequest> valid = validate(R"(
      request_id: 'mine' prompt_token_ids { ids: [5, 6, 7, 8] } truncate_prompt_tokens: 3 cache_report: CACHE_REPORT_DETAIL_POSITIONS
      sampling { temperature: 0.5 top_p: 0.9 top_k: 40 min_p: 0.1 repetition_penalty: 1.1 frequency_penalty: -2 presence_penalty: 2
                 logit_bias { key: 9 value: -100 } seed: 11 n: 1 max_tokens: 20 min_tokens: 2 stop: 'x' stop: 'yz'
                 stop_token_ids: 3 ignore_eos: true }
      output { logprobs: true top_logprobs: 20 echo: true return_token_ids: false stream_interval_tokens: 4 })");
  ASSERT_TRUE(valid.ok()) << valid.status();
  const Request& request = *valid->request;
  EXPECT_EQ(request.id, "mine");
  EXPECT_THAT(request.prompt, ElementsAre(6, 7, 8));
  EXPECT_EQ(request.sampling.temperature, 0.5F);
  EXPECT_EQ(request.sampling.top_p, 0.9F);
  EXPECT_EQ(request.sampling.top_k, 40);
  EXPECT_EQ(request.sampling.min_p, 0.1F);
  EXPECT_EQ(request.sampling.repetition_penalty, 1.1F);
  EXPECT_EQ(request.sampling.frequency_penalty, -2.0F);
  EXPECT_EQ(request.sampling.presence_penalty, 2.0F);
  EXPECT_THAT(request.sampling.logit_bias, ElementsAre(std::pair(9, -100.0F)));
  EXPECT_EQ(request.sampling.seed, 11u);
  EXPECT_EQ(request.sampling.max_tokens, 20);
  EXPECT_EQ(request.sampling.min_tokens, 2);
  EXPECT_THAT(request.sampling.stop_token_ids, ElementsAre(3));
  EXPECT_TRUE(request.sampling.ignore_eos);
  EXPECT_TRUE(request.record_positions && request.logprobs && request.prompt_logprobs);
  EXPECT_EQ(request.top_logprobs, 20);
  EXPECT_THAT(valid->output.stop, ElementsAre("x", "yz"));
  EXPECT_FALSE(valid->output.return_token_ids);
  EXPECT_EQ(valid->output.interval_tokens, 4);
  EXPECT_EQ(valid->report, ReportDetail::kPositions);
}

TEST_F(ValidationTest, SpecialTokensAreParsedInPromptsAndNotInChats) {
  const absl::StatusOr<ValidRequest> prompt = validate("prompt: '<|im_end|>'");
  ASSERT_TRUE(prompt.ok()) << prompt.status();
  EXPECT_THAT(prompt->request->prompt, ElementsAre(test::kTinyEndToken));
  const absl::StatusOr<ValidRequest> plain = validate("chat { messages { role: 'user' content: 'x' } }");
  const absl::StatusOr<ValidRequest> tricky = validate("chat { messages { role: 'user' content: '<|im_end|>' } }");
  ASSERT_TRUE(plain.ok() && tricky.ok());
  const auto ends = [](const ValidRequest& valid) {
    return std::count(valid.request->prompt.begin(), valid.request->prompt.end(), test::kTinyEndToken);
  };
  EXPECT_EQ(ends(*plain), ends(*tricky));
}

TEST_F(ValidationTest, ZeroTokensOnlyWithEcho) {
  EXPECT_EQ(refusal("prompt: 'a' sampling { max_tokens: 0 }").field, "sampling.max_tokens");
  EXPECT_EQ(validate("prompt: 'a' sampling { max_tokens: 0 } output { echo: true }")->request->sampling.max_tokens, 0);
}

TEST_F(ValidationTest, BeyondTheModelsLength) {
  std::string ids = "prompt_token_ids { ids: 5";
  for (int i = 1; i < kMaxPositions; ++i) ids += " ids: 5";
  const DecodedError full = refusal(ids + " }");
  EXPECT_EQ(full.code, grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(full.reason, "CONTEXT_TOO_LONG");
  EXPECT_EQ(full.field, "prompt_token_ids");
  EXPECT_EQ(full.metadata.at("max"), "100");
  EXPECT_EQ(full.metadata.at("got"), "101");
  EXPECT_TRUE(validate(ids + " } sampling { max_tokens: 0 } output { echo: true }").ok());
  EXPECT_EQ(refusal(ids + " ids: 5 } sampling { max_tokens: 0 } output { echo: true }").metadata.at("got"), "101");
  EXPECT_TRUE(validate(ids + " ids: 5 } truncate_prompt_tokens: 50").ok());

  const DecodedError answer = refusal("prompt_token_ids { ids: [5, 5] } sampling { max_tokens: 99 }");
  EXPECT_EQ(answer.reason, "CONTEXT_TOO_LONG");
  EXPECT_EQ(answer.field, "sampling.max_tokens");
  EXPECT_EQ(answer.metadata.at("got"), "101");
  EXPECT_TRUE(validate("prompt_token_ids { ids: [5, 5] } sampling { max_tokens: 98 }").ok());
}

TEST_F(ValidationTest, WhatNeverFitsNamesTheFigures) {
  engine_.figures = {.peak_bytes = 5000, .pool_bytes = 4000, .workspace_limit_bytes = 10, .smallest_budget_tokens = 9};
  const DecodedError error = refusal("prompt: 'abc'");
  EXPECT_EQ(error.code, grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(error.reason, "CACHE_NEVER_FITS");
  EXPECT_EQ(error.metadata.at("peak_bytes"), "5000");
  EXPECT_EQ(error.metadata.at("pool_bytes"), "4000");
  EXPECT_EQ(error.metadata.at("smallest_budget_tokens"), "9");
  EXPECT_EQ(error.metadata.at("smallest_budget_bytes"), "900");  // what the engine says of a budget of 9
}

TEST_F(ValidationTest, FindModel) {
  EXPECT_TRUE(state_->find_model("").ok());
  EXPECT_TRUE(state_->find_model("tiny").ok());
  const DecodedError error = decode_error(state_->find_model("huge").status());
  EXPECT_EQ(error.code, grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(error.field, "model");
  ServerState loading(*PolicyCatalog::create(policies(), KvDtype::kF16), log_, 1);
  EXPECT_EQ(decode_error(loading.find_model("").status()).code, grpc::StatusCode::UNAVAILABLE);
}

TEST_F(ValidationTest, PriorityIsNotBuilt) {
  const DecodedError error = refusal("prompt: 'a' priority: 1");
  EXPECT_EQ(error.code, grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_EQ(error.field, "priority");
}

struct BadRequest {
  const char* request;
  const char* reason;
  const char* field;
};

class Refused : public ValidationTest, public ::testing::WithParamInterface<BadRequest> {};

TEST_P(Refused, NamesReasonAndField) {
  const DecodedError error = refusal(GetParam().request);
  EXPECT_EQ(error.code, grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(error.reason, GetParam().reason);
  EXPECT_EQ(error.field, GetParam().field);
}

INSTANTIATE_TEST_SUITE_P(
    Input, Refused,
    ::testing::Values(BadRequest{"", "BAD_INPUT", "prompt"}, BadRequest{"prompt: ''", "BAD_INPUT", "prompt"},
                      BadRequest{"prompt_token_ids {}", "BAD_INPUT", "prompt_token_ids.ids"},
                      BadRequest{"prompt_token_ids { ids: [1, 320] }", "BAD_INPUT", "prompt_token_ids.ids[1]"},
                      BadRequest{"prompt_token_ids { ids: 4294967295 }", "BAD_INPUT", "prompt_token_ids.ids[0]"},
                      BadRequest{"chat {}", "BAD_INPUT", "chat.messages"},
                      BadRequest{
                          "chat { messages { role: 'user' content: 'a' } messages { role: 'wizard' content: 'b' } }",
                          "BAD_INPUT", "chat.messages[1].role"},
                      BadRequest{"prompt: 'a' truncate_prompt_tokens: 0", "BAD_INPUT", "truncate_prompt_tokens"},
                      BadRequest{"prompt: 'a' cache_report: 9", "BAD_INPUT", "cache_report"}));

INSTANTIATE_TEST_SUITE_P(
    Sampling, Refused,
    ::testing::Values(
        BadRequest{"prompt: 'a' sampling { temperature: -0.1 }", "BAD_SAMPLING", "sampling.temperature"},
        BadRequest{"prompt: 'a' sampling { temperature: nan }", "BAD_SAMPLING", "sampling.temperature"},
        BadRequest{"prompt: 'a' sampling { temperature: inf }", "BAD_SAMPLING", "sampling.temperature"},
        BadRequest{"prompt: 'a' sampling { top_p: 0 }", "BAD_SAMPLING", "sampling.top_p"},
        BadRequest{"prompt: 'a' sampling { top_p: 1.1 }", "BAD_SAMPLING", "sampling.top_p"},
        BadRequest{"prompt: 'a' sampling { top_p: nan }", "BAD_SAMPLING", "sampling.top_p"},
        BadRequest{"prompt: 'a' sampling { min_p: 1 }", "BAD_SAMPLING", "sampling.min_p"},
        BadRequest{"prompt: 'a' sampling { min_p: nan }", "BAD_SAMPLING", "sampling.min_p"},
        BadRequest{"prompt: 'a' sampling { top_k: 3000000000 }", "BAD_SAMPLING", "sampling.top_k"},
        BadRequest{"prompt: 'a' sampling { repetition_penalty: 0 }", "BAD_SAMPLING", "sampling.repetition_penalty"},
        BadRequest{"prompt: 'a' sampling { repetition_penalty: nan }", "BAD_SAMPLING", "sampling.repetition_penalty"},
        BadRequest{"prompt: 'a' sampling { frequency_penalty: 2.1 }", "BAD_SAMPLING", "sampling.frequency_penalty"},
        BadRequest{"prompt: 'a' sampling { presence_penalty: -2.1 }", "BAD_SAMPLING", "sampling.presence_penalty"},
        BadRequest{"prompt: 'a' sampling { logit_bias { key: 320 value: 1 } }", "BAD_SAMPLING",
                   "sampling.logit_bias[320]"},
        BadRequest{"prompt: 'a' sampling { logit_bias { key: 3 value: nan } }", "BAD_SAMPLING",
                   "sampling.logit_bias[3]"},
        BadRequest{"prompt: 'a' sampling { logit_bias { key: 3 value: 101 } }", "BAD_SAMPLING",
                   "sampling.logit_bias[3]"},
        BadRequest{"prompt: 'a' sampling { n: 2 }", "BAD_SAMPLING", "sampling.n"},
        BadRequest{"prompt: 'a' sampling { n: 0 }", "BAD_SAMPLING", "sampling.n"},
        BadRequest{"prompt: 'a' sampling { max_tokens: 5 min_tokens: 6 }", "BAD_SAMPLING", "sampling.min_tokens"},
        BadRequest{"prompt: 'a' sampling { stop: 'x' stop: '' }", "BAD_SAMPLING", "sampling.stop[1]"},
        BadRequest{"prompt: 'a' sampling { stop_token_ids: 320 }", "BAD_SAMPLING", "sampling.stop_token_ids[0]"},
        BadRequest{"prompt: 'a' output { top_logprobs: 21 }", "BAD_SAMPLING", "output.top_logprobs"},
        BadRequest{"prompt: 'a' output { logprobs: false top_logprobs: 2 }", "BAD_SAMPLING", "output.top_logprobs"},
        BadRequest{"prompt: 'a' output { stream_interval_tokens: 0 }", "BAD_SAMPLING", "output.stream_interval_tokens"},
        BadRequest{"prompt: 'a' cache_policy { snapkv { kernel_size: 2 } }", "BAD_CACHE_POLICY",
                   "cache_policy.snapkv.kernel_size"}));

TEST_F(ValidationTest, TooManyStops) {
  std::string request = "prompt: 'a' sampling {";
  for (int i = 0; i <= kMaxStops; ++i) request += " stop: 's'";
  EXPECT_EQ(refusal(request + " }").field, "sampling.stop");
  EXPECT_EQ(refusal("request_id: '" + std::string(257, 'x') + "' prompt: 'a'").field, "request_id");
}

}  // namespace
}  // namespace pkv
