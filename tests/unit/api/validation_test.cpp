// Every rule for requests: what is refused names its field, and what is accepted has its defaults.
#include "server/api/validation.h"

#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>

#include <algorithm>
#include <limits>
#include <stop_token>

#include "absl/time/clock.h"
#include "server/api/job_claim.h"
#include "server/api/sampling_rules.h"
#include "server/status/field_error.h"
#include "tests/unit/api/api_fixture.h"

namespace pkv {
namespace {

namespace pb = ::pyramidkv::v1;
using ::testing::Contains;
using ::testing::ElementsAre;

class ValidationTest : public ApiTest {
 protected:
  absl::StatusOr<ValidRequest> validate(const std::string& text) {
    pb::GenerateRequest message;
    EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &message)) << text;
    return validate_request(message, served_, *state_, std::nullopt, {});
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
  const Request& request = valid->request();
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
  EXPECT_NE(a->request().sampling.seed, b->request().sampling.seed);
  EXPECT_LT(std::max(a->request().sampling.seed, b->request().sampling.seed), uint64_t{1} << 53);
  EXPECT_NE(a->request().id, b->request().id);
  EXPECT_EQ(validate("prompt: 'abc' sampling { seed: 0 }")->request().sampling.seed, 0u);
}

TEST_F(ValidationTest, EverythingIsTaken) {
  const absl::StatusOr<ValidRequest> valid = validate(R"(
      request_id: 'mine' prompt_token_ids { ids: [5, 6, 7, 8] } truncate_prompt_tokens: 3 cache_report: CACHE_REPORT_DETAIL_POSITIONS
      sampling { temperature: 0.5 top_p: 0.9 top_k: 40 min_p: 0.1 repetition_penalty: 1.1 frequency_penalty: -2 presence_penalty: 2
                 logit_bias { key: 9 value: -100 } seed: 11 n: 1 max_tokens: 20 min_tokens: 2 stop: 'x' stop: 'yz'
                 stop_token_ids: 3 ignore_eos: true }
      output { logprobs: true top_logprobs: 20 echo: true return_token_ids: false stream_interval_tokens: 4 })");
  ASSERT_TRUE(valid.ok()) << valid.status();
  const Request& request = valid->request();
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
  EXPECT_THAT(prompt->request().prompt, ElementsAre(test::kTinyEndToken));
  const absl::StatusOr<ValidRequest> plain = validate("chat { messages { role: 'user' content: 'x' } }");
  const absl::StatusOr<ValidRequest> tricky = validate("chat { messages { role: 'user' content: '<|im_end|>' } }");
  ASSERT_TRUE(plain.ok() && tricky.ok());
  const auto ends = [](const ValidRequest& valid) {
    return std::count(valid.request().prompt.begin(), valid.request().prompt.end(), test::kTinyEndToken);
  };
  EXPECT_EQ(ends(*plain), ends(*tricky));
}

TEST_F(ValidationTest, ChatsThatTheTemplateCannotRenderSayWhy) {
  const auto reason_with = [&](const char* chat_template) {
    chat_ = std::make_unique<ChatTemplate>(chat_template, *tokenizer_);
    served_.chat_template = chat_.get();
    const DecodedError error = refusal("chat { messages { role: 'user' content: 'x' } }");
    EXPECT_EQ(error.code, absl::StatusCode::kFailedPrecondition) << chat_template;
    EXPECT_EQ(error.field, "chat") << chat_template;
    return error.reason;
  };
  EXPECT_EQ(reason_with(""), "NO_CHAT_TEMPLATE");
  EXPECT_EQ(reason_with("{{ 'unclosed"), "NO_CHAT_TEMPLATE");
  EXPECT_EQ(reason_with("{{ messages[0].x.y }}"), "CHAT_TEMPLATE_FAILED");
}

TEST_F(ValidationTest, ZeroTokensOnlyWithEcho) {
  EXPECT_EQ(refusal("prompt: 'a' sampling { max_tokens: 0 }").field, "sampling.max_tokens");
  EXPECT_EQ(validate("prompt: 'a' sampling { max_tokens: 0 } output { echo: true }")->request().sampling.max_tokens, 0);
}

TEST_F(ValidationTest, BeyondTheModelsLength) {
  std::string ids = "prompt_token_ids { ids: 5";
  for (int i = 1; i < kMaxPositions; ++i) ids += " ids: 5";
  const DecodedError full = refusal(ids + " }");
  EXPECT_EQ(full.code, absl::StatusCode::kInvalidArgument);
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
  Refusal refusal_to_make{.peak_bytes = 5000,
                          .pool_bytes = 4000,
                          .workspace_limit_bytes = 10,
                          .smallest_budget_tokens = 9,
                          .smallest_budget_bytes = 4500};
  engine_.answer = [&](const Contract::Query&) {
    Contract contract;
    contract.refusal = refusal_to_make;
    return contract;
  };
  const DecodedError error = refusal("prompt: 'abc'");
  EXPECT_EQ(error.code, absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(error.reason, "CACHE_NEVER_FITS");
  EXPECT_EQ(error.field, "");
  EXPECT_EQ(error.metadata.at("peak_bytes"), "5000");
  EXPECT_EQ(error.metadata.at("pool_bytes"), "4000");
  EXPECT_EQ(error.metadata.at("smallest_budget_tokens"), "9");
  EXPECT_EQ(error.metadata.at("smallest_budget_bytes"), "4500");
  EXPECT_THAT(error.message, ::testing::HasSubstr("smallest budget of 9 tokens would not fit"));
  refusal_to_make.largest_budget_tokens = 20;
  EXPECT_THAT(refusal("prompt: 'abc'").message, ::testing::HasSubstr("a budget of at most 20 tokens would fit"));
  refusal_to_make.reason = Refusal::Reason::kWorkspace;
  refusal_to_make.workspace_bytes = 11;
  EXPECT_THAT(refusal("prompt: 'abc'").message, ::testing::StartsWith("the prompt needs 11 bytes of workspace"));
  refusal_to_make.workspace_bytes = 4;
  refusal_to_make.state_bytes = 7;
  const DecodedError state = refusal("prompt: 'abc'");
  EXPECT_EQ(state.reason, "CACHE_NEVER_FITS");
  EXPECT_THAT(state.message, ::testing::StartsWith("the policy needs 7 bytes for what decides its evictions"));
}

TEST_F(ValidationTest, ABoundInBytesThatIsTooSmallIsNamed) {
  engine_.answer = [](const Contract::Query&) {
    Contract contract;
    contract.refusal = Refusal{.reason = Refusal::Reason::kBudget,
                               .peak_bytes = 700,
                               .pool_bytes = 4000,
                               .smallest_budget_tokens = 9,
                               .smallest_budget_bytes = 700};
    return contract;
  };
  const DecodedError bytes = refusal("prompt: 'abc' cache_policy { tova {} budget { bytes: 600 } }");
  EXPECT_EQ(bytes.code, absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(bytes.reason, "CACHE_NEVER_FITS");
  EXPECT_EQ(bytes.field, "cache_policy.budget.bytes");
  EXPECT_THAT(bytes.description, ::testing::HasSubstr("at least 700 bytes"));
  EXPECT_EQ(bytes.metadata.at("smallest_budget_bytes"), "700");
  EXPECT_EQ(bytes.metadata.at("smallest_budget_tokens"), "9");
  EXPECT_EQ(bytes.metadata.at("peak_bytes"), "700");
  EXPECT_EQ(bytes.metadata.at("pool_bytes"), "4000");
  EXPECT_EQ(refusal("prompt: 'abc' cache_policy { tova {} budget { min_recall: 0.5 max_bytes: 600 } }").field,
            "cache_policy.budget.max_bytes");
}

TEST_F(ValidationTest, WhatTheEngineRefusesNamesItsField) {
  engine_.answer = [](const Contract::Query&) {
    return field_error("cache_policy.pins[0].end", "9 is beyond the prompt");
  };
  const DecodedError pins = refusal("prompt_token_ids { ids: [5, 5] } cache_policy { tova {} pins { end: 9 } }");
  EXPECT_EQ(pins.reason, "BAD_CACHE_POLICY");
  EXPECT_EQ(pins.field, "cache_policy.pins[0].end");
  engine_.answer = [](const Contract::Query&) {
    return refused({.reason = Refusal::Reason::kLength, .positions = 105, .max_positions = 100});
  };
  const DecodedError length = refusal("prompt_token_ids { ids: [5, 5] } sampling { max_tokens: 7 }");
  EXPECT_EQ(length.reason, "CONTEXT_TOO_LONG");
  EXPECT_EQ(length.field, "sampling.max_tokens");
  EXPECT_EQ(length.metadata.at("max"), "100");
  EXPECT_EQ(length.metadata.at("got"), "9");
  EXPECT_EQ(length.description, "a prompt of 2 tokens and max_tokens of 7 use 105 positions; the model has 100");
}

TEST_F(ValidationTest, CacheRelativePositionsAreNotLimitedByTheModelsLength) {
  const std::string policy = " cache_policy { streaming_llm { position_mode: POSITION_MODE_CACHE_RELATIVE } }";
  const std::string ids = "prompt_token_ids { ids: [5, 5] }";
  EXPECT_EQ(validate(ids + policy + " sampling { max_tokens: 32000 }")->request().sampling.max_tokens, 32000);
  EXPECT_EQ(validate(ids + policy)->request().sampling.max_tokens, kDefaultMaxTokens);
  EXPECT_EQ(refusal(ids + policy + " sampling { max_tokens: 4294967295 }").reason, "CONTEXT_TOO_LONG");
  EXPECT_EQ(refusal(ids + " cache_policy { streaming_llm {} } sampling { max_tokens: 32000 }").reason,
            "CONTEXT_TOO_LONG");
  std::string prompt = "prompt_token_ids {";
  for (int i = 0; i <= kMaxPositions; ++i) prompt += " ids: 5";
  EXPECT_EQ(refusal(prompt + " }" + policy).field, "prompt_token_ids");
}

TEST_F(ValidationTest, TheSystemMessageIsPinned) {
  const std::string chat =
      "chat { messages { role: 'system' content: 'be brief' } messages { role: 'user' content: 'hi' } } ";
  const std::string policy = "cache_policy { tova {} pins { begin: 1 end: 2 } pin_system_message: true } ";
  const absl::StatusOr<ValidRequest> valid = validate(chat + policy);
  ASSERT_TRUE(valid.ok()) << valid.status();
  const std::vector<TokenSpan>& pins = valid->request().policy.pins;
  ASSERT_EQ(pins.size(), 2u);
  EXPECT_EQ(pins[0].begin, 1);
  const std::vector<TokenId>& prompt = valid->request().prompt;
  const auto text = [&](const std::vector<TokenId>& tokens, const TokenSpan& span) {
    return *tokenizer_->decode(
        std::span(tokens).subspan(static_cast<size_t>(span.begin), static_cast<size_t>(span.end - span.begin)));
  };
  EXPECT_EQ(text(prompt, pins[1]), "be brief");

  // Truncation shifts the span, and leaves the rest of what it cuts.
  const auto kept = static_cast<int32_t>(prompt.size()) - pins[1].begin - 3;
  const absl::StatusOr<ValidRequest> cut = validate(chat + policy + "truncate_prompt_tokens: " + std::to_string(kept));
  ASSERT_TRUE(cut.ok()) << cut.status();
  ASSERT_EQ(cut->request().policy.pins.size(), 2u);
  EXPECT_EQ(cut->request().policy.pins[1].begin, 0);
  EXPECT_EQ(cut->request().policy.pins[1].end, pins[1].end - pins[1].begin - 3);
  EXPECT_TRUE(std::string("be brief").ends_with(text(cut->request().prompt, cut->request().policy.pins[1])));
  const absl::StatusOr<ValidRequest> gone = validate(chat + policy + "truncate_prompt_tokens: 3");
  ASSERT_TRUE(gone.ok()) << gone.status();
  EXPECT_EQ(gone->request().policy.pins.size(), 1u);
}

TEST_F(ValidationTest, PinningASystemMessageNeedsOne) {
  const std::string policy = " cache_policy { tova {} pin_system_message: true }";
  const absl::StatusOr<ValidRequest> none = validate("chat { messages { role: 'user' content: 'hi' } }" + policy);
  ASSERT_TRUE(none.ok()) << none.status();
  EXPECT_TRUE(none->request().policy.pins.empty());
  const DecodedError error = refusal("prompt: 'a'" + policy);
  EXPECT_EQ(error.reason, "BAD_CACHE_POLICY");
  EXPECT_EQ(error.field, "cache_policy.pin_system_message");
}

TEST_F(ValidationTest, FindModel) {
  EXPECT_TRUE(state_->find_model("").ok());
  EXPECT_TRUE(state_->find_model("tiny").ok());
  const DecodedError error = decode_error(state_->find_model("huge").status());
  EXPECT_EQ(error.code, absl::StatusCode::kNotFound);
  EXPECT_EQ(error.field, "model");
  ServerState loading(*PolicyCatalog::create(policies(), KvDtype::kF16), log_, 1);
  EXPECT_EQ(decode_error(loading.find_model("").status()).code, absl::StatusCode::kUnavailable);
}

TEST_F(ValidationTest, TextThatIsTooLongByItsBytesIsNotTokenised) {
  served_.longest_tokens = {10};
  const std::string text(2000, 'a');  // 200 tokens at least, of 100 that may be
  for (const std::string& input :
       {"prompt: '" + text + "'", "chat { messages { role: 'user' content: '" + text + "' } }"}) {
    const DecodedError error = refusal(input);
    EXPECT_EQ(error.reason, "CONTEXT_TOO_LONG");
    EXPECT_EQ(error.metadata.at("got"), "200");
    EXPECT_THAT(error.message, ::testing::HasSubstr("truncate_prompt_tokens"));
  }
  EXPECT_TRUE(validate("prompt: '" + text + "' truncate_prompt_tokens: 5").ok());
  const std::string endless = "cache_policy { streaming_llm { position_mode: POSITION_MODE_CACHE_RELATIVE } }";
  EXPECT_EQ(refusal("prompt: '" + text + "' " + endless).metadata.at("max"), std::to_string(kMaxPositions));
}

TEST_F(ValidationTest, NoTextOfMoreBytesThanTheLimitIsTokenised) {
  state_ = std::make_unique<ServerState>(*PolicyCatalog::create(policies(), KvDtype::kF16), log_, 7,
                                         FrontLimits{.max_text_bytes = 200});
  state_->publish(&served_);
  const std::string text(201, 'a');
  for (const auto& [input, field] : {std::pair("prompt: '" + text + "'", "prompt"),
                                     std::pair("chat { messages { role: '" + text + "' content: 'a' } }", "chat")}) {
    const DecodedError error = refusal(input + " truncate_prompt_tokens: 5");
    EXPECT_EQ(error.field, field);
    EXPECT_EQ(error.metadata.at("max"), "200");
    EXPECT_THAT(error.message, ::testing::HasSubstr("server.max_text_bytes"));
  }
  EXPECT_TRUE(validate("prompt: '" + text.substr(1) + "' truncate_prompt_tokens: 5").ok());
}

TEST_F(ValidationTest, WhatACallerWroteIsRepeatedInPart) {
  const std::string name(100'000, 'x');
  EXPECT_LT(state_->find_model(name).status().message().size(), 300u);
  EXPECT_LT(refusal("prompt: 'a' cache_policy { preset: '" + name + "' }").message.size(), 300u);
  EXPECT_THAT(std::string(state_->find_model("a\x1b[2J").status().message()), ::testing::HasSubstr("a\\u001b[2J"));
}

TEST_F(ValidationTest, RequestIdsHaveNoControlCharacters) {
  EXPECT_EQ(refusal("request_id: 'a\\nb' prompt: 'a'").field, "request_id");
  EXPECT_EQ(refusal("request_id: 'a\\033[2J' prompt: 'a'").field, "request_id");
}

// They are told to whoever watches the statistics, in messages whose texts have to be UTF-8.
TEST_F(ValidationTest, RequestIdsAreUtf8) {
  EXPECT_EQ(refusal("request_id: 'a\\377' prompt: 'a'").field, "request_id");
  EXPECT_TRUE(is_request_id("\u00e9"));
}

TEST_F(ValidationTest, StopTokensAreFew) {
  std::string ids;
  for (int i = 0; i < 257; ++i) ids += " stop_token_ids: 5";
  EXPECT_EQ(refusal("prompt: 'a' sampling {" + ids + " }").field, "sampling.stop_token_ids");
}

TEST_F(ValidationTest, DeadlinesThatNoPromptCouldMeetAreRefused) {
  pb::GenerateRequest message;
  message.set_prompt("abcdefgh");
  const auto status_within = [&](absl::Duration left) {
    return validate_request(message, served_, *state_, absl::Now() + left, {}).status();
  };
  EXPECT_TRUE(status_within(absl::Milliseconds(1)).ok());  // nothing was measured
  engine_.prompt_time = absl::Seconds(1000);
  EXPECT_TRUE(validate("prompt: 'abcdefgh'").ok());     // no deadline
  EXPECT_TRUE(status_within(absl::Seconds(700)).ok());  // close
  const DecodedError error = decode_error(status_within(absl::Seconds(600)));
  EXPECT_EQ(error.code, absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(error.reason, "DEADLINE_TOO_SHORT");
  EXPECT_EQ(error.metadata.at("estimated_seconds"), "1000.0");
  EXPECT_LE(std::stod(error.metadata.at("remaining_seconds")), 600);
  EXPECT_TRUE(error.metadata.contains("tokens_per_second"));
  EXPECT_THAT(error.message, ::testing::HasSubstr("truncate_prompt_tokens"));
}

TEST(ReadClaim, PrioritiesAreOfARange) {
  pb::GenerateRequest message;
  EXPECT_EQ(read_claim(message, nullptr)->priority, 0);
  EXPECT_EQ(read_claim(message, nullptr)->owner, "");
  for (const int32_t good : {-100, 1, 100}) {
    message.set_priority(good);
    EXPECT_EQ(read_claim(message, nullptr)->priority, good);
  }
  for (const int32_t bad : {-101, 101, std::numeric_limits<int32_t>::min(), std::numeric_limits<int32_t>::max()}) {
    message.set_priority(bad);
    const DecodedError error = decode_error(read_claim(message, nullptr).status());
    EXPECT_EQ(error.reason, "BAD_INPUT");
    EXPECT_EQ(error.field, "priority");
    EXPECT_THAT(error.description, ::testing::HasSubstr("from -100 to 100"));
  }
}

TEST(ReadClaim, AKeyHasItsOwnerAndItsBestPriority) {
  const KeyUse plain({.name = "alice"}), urgent({.name = "bob", .best_priority = -5});
  pb::GenerateRequest message;
  message.set_priority(3);
  EXPECT_EQ(read_claim(message, &plain)->owner, "alice");
  message.set_priority(-5);
  EXPECT_EQ(read_claim(message, &urgent)->priority, -5);
  const DecodedError error = decode_error(read_claim(message, &plain).status());
  EXPECT_EQ(error.code, absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(error.field, "priority");
  EXPECT_THAT(error.description, ::testing::HasSubstr("must be at least 0 with the key \"alice\""));
}

struct BadRequest {
  const char* request;
  const char* reason;
  const char* field;
};

class Refused : public ValidationTest, public ::testing::WithParamInterface<BadRequest> {};

TEST_P(Refused, NamesReasonAndField) {
  const DecodedError error = refusal(GetParam().request);
  EXPECT_EQ(error.code, absl::StatusCode::kInvalidArgument);
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

// Which is no refusal: it names no field, and nobody counts it.
TEST_F(ValidationTest, WhatIsStoppedIsCancelled) {
  std::stop_source stop;
  stop.request_stop();
  pb::GenerateRequest prompt, chat;
  prompt.set_prompt("abc");
  chat.mutable_chat()->add_messages()->set_role("user");
  for (const pb::GenerateRequest& message : {prompt, chat}) {
    const absl::Status status = validate_request(message, served_, *state_, std::nullopt, stop.get_token()).status();
    EXPECT_TRUE(absl::IsCancelled(status)) << status;
    EXPECT_EQ(decode_error(status).reason, "");
  }
}

}  // namespace
}  // namespace pkv
