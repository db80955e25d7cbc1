// Answers: unary and streamed, echo, stop strings, cache reports, refusals as a client sees them.
#include <gmock/gmock.h>

#include "tests/integration/server_fixture.h"

namespace pkv {
namespace {

class GenerationTest : public ServerTest {
 protected:
  void SetUp() override { start_and_load(); }
};

TEST_F(GenerationTest, Unary) {
  pb::GenerateRequest wish = request("hello world", 12);
  wish.set_request_id("mine");
  pb::GenerateResponse reply;
  const grpc::Status status = generate(wish, reply);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(reply.request_id(), "mine");
  EXPECT_EQ(reply.model(), "tiny");
  ASSERT_EQ(reply.choices_size(), 1);
  EXPECT_EQ(reply.choices(0).token_ids_size(), 12);
  EXPECT_FALSE(reply.choices(0).text().empty());
  EXPECT_EQ(reply.choices(0).finish_reason(), pb::FINISH_REASON_LENGTH);
  EXPECT_EQ(reply.usage().completion_tokens(), 12u);
  EXPECT_EQ(reply.usage().total_tokens(), reply.usage().prompt_tokens() + 12);
  EXPECT_EQ(reply.cache().policy_name(), "full");
  EXPECT_EQ(reply.cache().logical_tokens(), reply.usage().prompt_tokens() + 11);  // the last one is not written
  EXPECT_EQ(reply.cache().held_bytes(), reply.cache().full_bytes());
  EXPECT_EQ(reply.cache().saved_bytes(),
            static_cast<int64_t>(reply.cache().full_bytes()) -
                static_cast<int64_t>(reply.cache().allocated_bytes() + reply.cache().auxiliary_bytes()));
}

TEST_F(GenerationTest, AStreamIsStartDeltasAndOneEnd) {
  const pb::GenerateRequest wish = request("hello world", 20);
  pb::GenerateResponse unary;
  ASSERT_TRUE(generate(wish, unary).ok());
  grpc::Status status;
  const std::vector<pb::GenerateStreamResponse> events = stream(wish, status);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_GE(events.size(), 3u);
  EXPECT_TRUE(events.front().has_start());
  EXPECT_EQ(events.front().start().prompt_tokens(), unary.usage().prompt_tokens());
  EXPECT_TRUE(events.front().start().effective_policy().has_full());
  EXPECT_TRUE(events.back().has_end());
  std::string text;
  std::vector<uint32_t> ids;
  for (size_t i = 1; i + 1 < events.size(); ++i) {
    EXPECT_TRUE(events[i].has_delta() || (ids.empty() && events[i].has_progress())) << i;
    text += events[i].delta().text();
    ids.insert(ids.end(), events[i].delta().token_ids().begin(), events[i].delta().token_ids().end());
  }
  EXPECT_EQ(text, unary.choices(0).text());
  EXPECT_EQ(ids, std::vector<uint32_t>(unary.choices(0).token_ids().begin(), unary.choices(0).token_ids().end()));
  EXPECT_EQ(events.back().end().usage().completion_tokens(), 20u);
  EXPECT_EQ(events.back().end().choices(0).finish_reason(), pb::FINISH_REASON_LENGTH);
  EXPECT_TRUE(events.back().end().has_cache());
}

TEST_F(GenerationTest, StreamIntervalsMergeTokens) {
  pb::GenerateRequest wish = request("hello", 40);
  wish.mutable_output()->set_stream_interval_tokens(1000);
  grpc::Status status;
  int deltas = 0;
  for (const pb::GenerateStreamResponse& event : stream(wish, status)) deltas += event.has_delta() ? 1 : 0;
  ASSERT_TRUE(status.ok());
  // The first token at once and the rest at the end, or all of them together where the start was still being sent.
  EXPECT_GE(deltas, 1);
  EXPECT_LE(deltas, 2);
}

TEST_F(GenerationTest, EchoWithLogprobs) {
  pb::GenerateRequest wish = request("hello world", 3);
  wish.mutable_output()->set_echo(true);
  wish.mutable_output()->set_top_logprobs(2);
  pb::GenerateResponse reply;
  ASSERT_TRUE(generate(wish, reply).ok());
  const pb::Choice& choice = reply.choices(0);
  const auto prompt_tokens = static_cast<int>(reply.usage().prompt_tokens());
  EXPECT_TRUE(choice.text().starts_with("hello world"));
  ASSERT_EQ(choice.token_ids_size(), prompt_tokens + 3);
  ASSERT_EQ(choice.logprobs_size(), prompt_tokens + 3);
  EXPECT_EQ(choice.logprobs(0).logprob(), 0.0F);
  for (int i = 0; i < choice.logprobs_size(); ++i) {
    EXPECT_EQ(choice.logprobs(i).token_id(), choice.token_ids(i));
    if (i == 0) continue;  // nothing comes before the first token
    EXPECT_LT(choice.logprobs(i).logprob(), 0.0F);
    EXPECT_EQ(choice.logprobs(i).top_size(), 2);
  }
  // Greedy: every generated token is the best one.
  EXPECT_EQ(choice.logprobs(prompt_tokens).top(0).token_id(), choice.token_ids(prompt_tokens));

  wish.mutable_sampling()->set_max_tokens(0);
  pb::GenerateResponse scored;
  ASSERT_TRUE(generate(wish, scored).ok());
  EXPECT_EQ(scored.choices(0).text(), "hello world");
  EXPECT_EQ(scored.usage().completion_tokens(), 0u);
  ASSERT_EQ(scored.choices(0).logprobs_size(), prompt_tokens);
  for (int i = 0; i < prompt_tokens; ++i)
    EXPECT_EQ(scored.choices(0).logprobs(i).logprob(), choice.logprobs(i).logprob());
}

TEST_F(GenerationTest, StopStringsAndTokens) {
  pb::GenerateResponse plain, cut;
  pb::GenerateRequest wish = request("hello world", 30);
  ASSERT_TRUE(generate(wish, plain).ok());
  const std::string& text = plain.choices(0).text();
  ASSERT_GE(text.size(), 8u);
  // A string of the answer itself, cut at characters.
  size_t begin = text.size() / 2;
  while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) --begin;
  size_t end = begin + 2;
  while (end < text.size() && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) ++end;
  const std::string stop = text.substr(begin, end - begin);
  wish.mutable_sampling()->add_stop(stop);
  ASSERT_TRUE(generate(wish, cut).ok());
  EXPECT_EQ(cut.choices(0).text(), text.substr(0, text.find(stop)));
  EXPECT_EQ(cut.choices(0).matched_stop(), stop);
  EXPECT_EQ(cut.choices(0).finish_reason(), pb::FINISH_REASON_STOP);
  EXPECT_EQ(cut.usage().completion_tokens(), static_cast<uint32_t>(cut.choices(0).token_ids_size()));
  EXPECT_LT(cut.usage().completion_tokens(), 30u);

  const uint32_t third = plain.choices(0).token_ids(2);
  wish.mutable_sampling()->clear_stop();
  wish.mutable_sampling()->add_stop_token_ids(third);
  ASSERT_TRUE(generate(wish, cut).ok());
  EXPECT_EQ(cut.choices(0).finish_reason(), pb::FINISH_REASON_STOP);
  EXPECT_LE(cut.choices(0).token_ids_size(), 3);
  EXPECT_EQ(cut.choices(0).token_ids(cut.choices(0).token_ids_size() - 1), third);
}

TEST_F(GenerationTest, SeedsMakeAnswersRepeatable) {
  pb::GenerateRequest wish = request("hello", 24);
  wish.mutable_sampling()->set_temperature(1);
  pb::GenerateResponse first, again, other;
  ASSERT_TRUE(generate(wish, first).ok());
  wish.mutable_sampling()->set_seed(first.seed());
  ASSERT_TRUE(generate(wish, again).ok());
  EXPECT_EQ(again.choices(0).text(), first.choices(0).text());
  wish.mutable_sampling()->set_seed(first.seed() + 1);
  ASSERT_TRUE(generate(wish, other).ok());
  EXPECT_NE(other.choices(0).text(), first.choices(0).text());
}

TEST_F(GenerationTest, CompressedCacheReport) {
  std::string prompt;
  for (int i = 0; i < 200; ++i) prompt += "word" + std::to_string(i) + " ";
  pb::GenerateRequest wish = request(prompt, 4);
  wish.mutable_cache_policy()->mutable_pyramidkv();
  wish.mutable_cache_policy()->mutable_budget()->set_tokens(32);
  wish.set_cache_report(pb::CACHE_REPORT_DETAIL_POSITIONS);
  pb::GenerateResponse reply;
  const grpc::Status status = generate(wish, reply);
  ASSERT_TRUE(status.ok()) << status.error_message();
  const pb::CacheReport& report = reply.cache();
  EXPECT_TRUE(report.compressed());
  EXPECT_EQ(report.policy_name(), "pyramidkv");
  EXPECT_EQ(report.budget_tokens(), 32u);
  EXPECT_LT(report.held_bytes(), report.full_bytes() / 4);
  EXPECT_GT(report.saved_bytes(), 0);
  EXPECT_GT(report.recall().mean(), 0.0);
  EXPECT_LE(report.recall().min(), report.recall().mean());
  ASSERT_EQ(report.layers_size(), 2);
  uint32_t kept = 0;
  for (const pb::LayerCache& layer : report.layers()) {
    ASSERT_EQ(layer.heads_size(), 2);
    for (const pb::KeptPositions& head : layer.heads()) {
      ASSERT_EQ(head.positions_size(), static_cast<int>(layer.kept_max()));
      EXPECT_TRUE(std::is_sorted(head.positions().begin(), head.positions().end()));
      EXPECT_EQ(head.positions(head.positions_size() - 1), reply.usage().prompt_tokens() - 1);
    }
    kept += layer.kept_max();
  }
  EXPECT_EQ(kept, 2u * 32);

  wish.set_cache_report(pb::CACHE_REPORT_DETAIL_NONE);
  ASSERT_TRUE(generate(wish, reply).ok());
  EXPECT_FALSE(reply.has_cache());
}

TEST_F(GenerationTest, ABudgetBeyondThePromptChangesNothing) {
  pb::GenerateRequest wish = request("hello world", 16);
  pb::GenerateResponse full, whole;
  ASSERT_TRUE(generate(wish, full).ok());
  wish.mutable_cache_policy()->mutable_snapkv();
  wish.mutable_cache_policy()->mutable_budget()->set_tokens(1000);
  ASSERT_TRUE(generate(wish, whole).ok());
  EXPECT_EQ(whole.choices(0).text(), full.choices(0).text());
  EXPECT_FALSE(whole.cache().compressed());
  EXPECT_FALSE(whole.cache().not_compressed_reason().empty());
  EXPECT_EQ(whole.cache().recall().min(), 1.0);
}

TEST_F(GenerationTest, RefusalsAreDecodable) {
  pb::GenerateRequest wish = request("hello", 4);
  wish.set_priority(101);
  pb::GenerateResponse reply;
  grpc::Status status = generate(wish, reply);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), ::testing::HasSubstr("priority"));
  EXPECT_EQ(reason(status), "BAD_INPUT");

  wish = request("hello", kContext);
  stream(wish, status);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(reason(status), "CONTEXT_TOO_LONG");
}

TEST_F(GenerationTest, TextThatIsNotUtf8IsRefusedByName) {
  pb::GenerateRequest wish;
  wish.set_prompt("a\xFF");
  pb::GenerateResponse reply;
  const grpc::Status status = generate(wish, reply);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(reason(status), "BAD_INPUT");
  EXPECT_THAT(status.error_message(), ::testing::StartsWith("prompt: "));
}

TEST_F(GenerationTest, DeadlinesEndRequests) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(200));
  pb::GenerateResponse reply;
  EXPECT_EQ(generation_->Generate(&context, request("hello", kEndless), &reply).error_code(),
            grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_TRUE(eventually_idle());
}

class SmallPoolTest : public ServerTest {};

TEST_F(SmallPoolTest, WhatNeverFitsIsRefusedAtOnce) {
  start_and_load([](Config& config) { config.cache.pool_bytes = 1 << 20; });
  pb::GenerateResponse reply;
  const grpc::Status status = generate(request("hello", kEndless), reply);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(reason(status), "CACHE_NEVER_FITS");
}

}  // namespace
}  // namespace pkv
