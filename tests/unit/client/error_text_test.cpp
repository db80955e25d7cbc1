// Errors as people read them: the flag beside the field, and a way out that is a flag.
#include "client/error_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "client/connection.h"

namespace pkv::client {
namespace {

using testing::EndsWith;
using testing::HasSubstr;

TEST(FlagOfField, EveryKindOfField) {
  const std::pair<const char*, const char*> kCases[] = {{"sampling.top_p", "--top-p"},
                                                        {"sampling.temperature", "--temperature"},
                                                        {"sampling.max_tokens", "--max-tokens"},
                                                        {"sampling.stop_token_ids[3]", "--stop-id"},
                                                        {"sampling.logit_bias[17]", "--logit-bias"},
                                                        {"output.top_logprobs", "--top-logprobs"},
                                                        {"cache_policy.budget.bytes", "--budget"},
                                                        {"cache_policy.budget.keep_ratio", "--budget"},
                                                        {"cache_policy.budget", "--budget"},
                                                        {"cache_policy.budget.max_bytes", "--max-bytes"},
                                                        {"cache_policy.budget.interval_tokens", "--interval"},
                                                        {"cache_policy.pins[0]", "--pin"},
                                                        {"cache_policy.snapkv.kernel_size", "--param kernel_size=..."},
                                                        {"cache_policy.kv_dtype", "--kv-dtype"},
                                                        {"cache_policy.prefill_tokens", "--prefill-tokens"},
                                                        {"cache_policy.preset", "--preset"},
                                                        {"truncate_prompt_tokens", "--truncate-prompt-tokens"},
                                                        {"model", "--model"},
                                                        {"priority", "--priority"},
                                                        {"cache_policy_of", ""}};
  for (const auto& [field, flag] : kCases) EXPECT_EQ(flag_of_field(field), flag) << field;
}

Error never_fits(const char* field) {
  Error error{
      .code = grpc::StatusCode::FAILED_PRECONDITION,
      .message = "the cache of this request would reach 9 bytes",
      .reason = "CACHE_NEVER_FITS",
      .metadata = {
          {"smallest_budget_bytes", "1240064"}, {"smallest_budget_tokens", "9"}, {"largest_budget_tokens", "700"}}};
  if (*field != '\0') {
    error.message = std::string(field) + ": must be at least 1240064 bytes";
    error.fields = {{field, "must be at least 1240064 bytes"}};
  }
  return error;
}

TEST(ErrorText, CacheThatNeverFits) {
  EXPECT_EQ(
      error_text(never_fits("cache_policy.budget.bytes"), {}),
      "cache_policy.budget.bytes (--budget): must be at least 1240064 bytes [CACHE_NEVER_FITS]\nTry --budget 1211KiB");
  EXPECT_THAT(error_text(never_fits("cache_policy.budget.max_bytes"), {}), EndsWith("\nTry --max-bytes 1211KiB"));
  EXPECT_THAT(error_text(never_fits(""), {}), EndsWith("\nTry --budget 700"));
  EXPECT_EQ(way_out(never_fits(""), {.surface = Surface::kChat}), "Try /budget 700");
  Error full = never_fits("");
  full.metadata = {{"peak_bytes", "9"}, {"pool_bytes", "8"}};
  EXPECT_THAT(way_out(full, {}), HasSubstr("--policy pyramidkv --budget 128"));
  full.metadata = {{"workspace_bytes", "9"}, {"workspace_limit_bytes", "8"}};
  EXPECT_THAT(way_out(full, {}), HasSubstr("shorter prompt"));
}

TEST(ErrorText, TextThatIsTooLong) {
  Error error{.code = grpc::StatusCode::INVALID_ARGUMENT,
              .message = "sampling.max_tokens: too many",
              .reason = "CONTEXT_TOO_LONG",
              .metadata = {{"max", "8192"}, {"got", "8300"}},
              .fields = {{"sampling.max_tokens", "too many"}}};
  EXPECT_EQ(way_out(error, {.max_tokens = 300}), "Try --max-tokens 192");
  EXPECT_THAT(way_out(error, {.max_tokens = 100}), HasSubstr("--truncate-prompt-tokens 8092"));
  error.fields = {{"prompt", "has 8300 tokens"}};
  EXPECT_THAT(way_out(error, {.max_tokens = 292}), HasSubstr("--truncate-prompt-tokens 7900"));
  EXPECT_THAT(way_out(error, {.max_tokens = 9000}), HasSubstr("--truncate-prompt-tokens 4096 --max-tokens 4096"));
  EXPECT_THAT(way_out(error, {.surface = Surface::kChat}), HasSubstr("/forget"));
}

TEST(ErrorText, NamesAFieldThatTheMessageDoesNot) {
  const Error error{.message = "bad request", .fields = {{"sampling.top_p", "must be in (0, 1]"}}};
  EXPECT_EQ(error_text(error, {}), "bad request; sampling.top_p (--top-p): must be in (0, 1]");
  EXPECT_EQ(error_text({.code = grpc::StatusCode::INTERNAL}, {}), "gRPC status 13");
}

TEST(ErrorText, AdviceOnEveryReasonThatHasAny) {
  for (const char* reason :
       {"RECALL_NOT_REACHED", "NO_CHAT_TEMPLATE", "CHAT_TEMPLATE_FAILED", "UNAUTHENTICATED", "PERMISSION_DENIED",
        "KEY_LIMIT", "QUEUE_FULL", "OUT_OF_MEMORY", "LOADING", "DRAINING", "ENGINE_FAILED", "DEADLINE_TOO_SHORT"})
    EXPECT_THAT(way_out({.reason = reason}, {}), testing::StartsWith("Try ")) << reason;
  EXPECT_THAT(way_out({.code = grpc::StatusCode::DEADLINE_EXCEEDED}, {}), HasSubstr("--deadline"));
  EXPECT_EQ(way_out({.reason = "BAD_INPUT"}, {}), "");
}

TEST(TargetProblem, WhatIsNoHostWithAPort) {
  for (const char* good : {"127.0.0.1:50051", "localhost:1", "[::1]:50051", "unix:socket", "dns:///host:1"})
    EXPECT_EQ(target_problem(good), "") << good;
  EXPECT_THAT(target_problem("localhost"), HasSubstr("no port; try --server localhost:50051"));
  EXPECT_THAT(target_problem("localhost:"), HasSubstr("no port"));
  EXPECT_THAT(target_problem(":50051"), HasSubstr("no host; try --server 127.0.0.1:50051"));
  EXPECT_THAT(target_problem("host:http"), HasSubstr("'http' is no port"));
  EXPECT_THAT(target_problem("host:70000"), HasSubstr("1 to 65535"));
  EXPECT_THAT(target_problem("http://host:5/x"), HasSubstr("try --server host:5"));
}

TEST(ForeignSpeech, TellsServersApart) {
  EXPECT_THAT(foreign_speech("HTTP/1.1 400 Bad Request\r\n"), HasSubstr("web server"));
  EXPECT_THAT(foreign_speech(std::string("\x15\x03\x03\x00\x02\x02\x28", 7)), HasSubstr("TLS"));
  EXPECT_THAT(foreign_speech("SSH-2.0-OpenSSH"), HasSubstr("SSH"));
  EXPECT_THAT(foreign_speech("220 mail"), HasSubstr("something else"));
  EXPECT_EQ(foreign_speech(std::string("\0\0\x06\x04\0\0\0\0\0\0\x05", 11)), "");
}

}  // namespace
}  // namespace pkv::client
