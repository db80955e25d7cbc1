// SIGHUP: what a reload puts in force, and that one which is refused changes nothing.
#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>
#include <optional>

#include "tests/integration/program.h"

namespace pkv {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kKey[] = "a-key-that-is-in-no-log";
constexpr char kHash[] = "ae68aba7ccea3e1694d6b2756e7fad2fe3d62ce004a03aeb3fd79e2e4a31d7b4";

std::string preset(const std::string& name) {
  return "policies:\n  presets:\n    " + name + ":\n      policy: streaming_llm\n      tokens: 64\n";
}

class ReloadTest : public ::testing::Test {
 protected:
  // The file begins with a line of its own.
  void write_config(const std::string& rest, const std::string& level = "info", const std::string& pool = "64MiB") {
    std::ofstream(config_.path()) << "cache: {pool_bytes: " << pool << "}\nlog: {level: " << level << "}\n" << rest;
  }
  void start(const std::string& rest) {
    write_config(rest);
    program_.emplace(std::vector<std::string>{"--config", config_.path(), "--set", "model.path=" + model_.path(),
                                              "--set", "server.listen=127.0.0.1:0", "--set", "metrics.listen="});
    const std::string line = program_->read_to(" ready ");
    const size_t begin = line.find("address=") + 8;
    stub_ = pb::GenerationService::NewStub(
        grpc::CreateChannel(line.substr(begin, line.find(' ', begin) - begin), grpc::InsecureChannelCredentials()));
  }
  // The line that the log has about it.
  std::string reload() {
    program_->send(SIGHUP);
    return program_->read_to("SIGHUP: ");
  }
  grpc::StatusCode ask(const std::string& preset, const std::string& key = "") {
    return ask_about("hello", preset, key).error_code();
  }
  grpc::Status ask_about(const std::string& prompt, const std::string& preset, const std::string& key = "") {
    pb::GenerateRequest request;
    request.set_prompt(prompt);
    if (!preset.empty()) request.mutable_cache_policy()->set_preset(preset);
    return send(request, key);
  }
  grpc::StatusCode ask_for_snapkv() {
    pb::GenerateRequest request;
    request.set_prompt("hello");
    request.mutable_cache_policy()->mutable_snapkv();
    return send(request, "").error_code();
  }
  grpc::Status send(pb::GenerateRequest& request, const std::string& key) {
    grpc::ClientContext context;
    if (!key.empty()) context.AddMetadata("authorization", "Bearer " + key);
    request.mutable_sampling()->set_max_tokens(2);
    pb::GenerateResponse response;
    return stub_->Generate(&context, request, &response);
  }
  // What was logged from here on.
  std::string end() {
    stub_.reset();
    program_->send(SIGTERM);
    std::string rest = program_->read_all();
    EXPECT_EQ(program_->wait(), 0);
    return rest;
  }

  const test::TempFile config_{""};
  const test::TempFile keys_{""};
  const test::TempFile model_ = test::make_tiny_llama();
  std::optional<Program> program_;
  std::unique_ptr<pb::GenerationService::Stub> stub_;
};

TEST_F(ReloadTest, PresetsAreReplaced) {
  start(preset("first"));
  EXPECT_EQ(ask("first"), grpc::StatusCode::OK);
  EXPECT_EQ(ask("second"), grpc::StatusCode::NOT_FOUND);
  write_config(preset("second"));
  EXPECT_THAT(reload(), HasSubstr("in force"));
  EXPECT_EQ(ask("first"), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(ask("second"), grpc::StatusCode::OK);
}

TEST_F(ReloadTest, ARefusedOneNamesTheLineAndChangesNothing) {
  start(preset("first"));
  const std::string name = std::filesystem::path(config_.path()).filename().string();
  write_config(preset("second") + "      sink_tokens: many\n");
  EXPECT_THAT(reload(), AllOf(HasSubstr("nothing is changed: "), HasSubstr(name + ":8: ")));
  write_config(preset("second") + "    third: 3\n");
  EXPECT_THAT(reload(), AllOf(HasSubstr("nothing is changed: "), HasSubstr(name + ":8: policies.presets.third")));
  write_config(preset("second"), "info", "65MiB");
  EXPECT_THAT(reload(), AllOf(HasSubstr("nothing is changed: "),
                              HasSubstr(name + ":1: cache.pool_bytes: cannot change while the server runs, from 64MiB "
                                               "to 65MiB; restart it")));
  write_config(preset("second") + "server: {api_keys: " + keys_.path() + "}\n");
  std::ofstream(keys_.path()) << "\nno key\n";
  EXPECT_THAT(reload(), AllOf(HasSubstr(name + ":8: server.api_keys: "), HasSubstr(keys_.path() + ":2: ")));
  std::filesystem::remove(config_.path());
  EXPECT_THAT(reload(), HasSubstr("cannot be read"));
  EXPECT_EQ(ask("first"), grpc::StatusCode::OK);
  EXPECT_EQ(ask("second"), grpc::StatusCode::NOT_FOUND);
  write_config(preset("second"));
  EXPECT_THAT(reload(), HasSubstr("in force"));
  EXPECT_EQ(ask("second"), grpc::StatusCode::OK);
}

TEST_F(ReloadTest, KeysAreReplacedAndNamedInTheLogWithoutThem) {
  std::ofstream(keys_.path()) << kHash << " first-user\n";
  const std::string with_keys = preset("p") + "server: {api_keys: " + keys_.path() + "}\n";
  start(with_keys);
  EXPECT_EQ(ask("p"), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(ask("p", kKey), grpc::StatusCode::OK);
  EXPECT_THAT(program_->read_to("key="), HasSubstr("key=first-user"));
  std::ofstream(keys_.path()) << std::string(64, 'a') << " other\n";
  EXPECT_THAT(reload(), HasSubstr("in force"));
  EXPECT_EQ(ask("p", kKey), grpc::StatusCode::UNAUTHENTICATED);
  write_config(preset("p"));  // no keys any more
  EXPECT_THAT(reload(), HasSubstr("in force"));
  EXPECT_EQ(ask("p"), grpc::StatusCode::OK);
  EXPECT_THAT(end(), Not(HasSubstr(kKey)));
}

TEST_F(ReloadTest, LimitsOfWhatCallersMayHave) {
  start(preset("p"));
  const std::string text(1100, 'a');
  EXPECT_EQ(ask_about(text, "p").error_code(), grpc::StatusCode::OK);
  write_config(preset("p") + "server: {max_text_bytes: 1KiB}\nscheduler: {max_waiting_tokens: 3}\n");
  EXPECT_THAT(reload(), HasSubstr("in force"));
  const grpc::Status refused = ask_about(text, "p");
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(refused.error_message(), HasSubstr("1024"));
  EXPECT_EQ(ask("p"), grpc::StatusCode::OK);  // a prompt that alone is too long waits where no other does
  write_config(preset("p"));
  EXPECT_THAT(reload(), HasSubstr("in force"));
  EXPECT_EQ(ask_about(text, "p").error_code(), grpc::StatusCode::OK);
  write_config(preset("p") + "server: {max_message_bytes: 1MiB}\n");
  EXPECT_THAT(reload(), HasSubstr("server.max_message_bytes: cannot change while the server runs"));
}

TEST_F(ReloadTest, WhichPoliciesThereAre) {
  start("policies: {default: snapkv}\n");
  EXPECT_EQ(ask(""), grpc::StatusCode::OK);
  EXPECT_THAT(program_->read_to("method=Generate"), HasSubstr("policy=snapkv"));
  write_config("policies: {default: streaming_llm, disabled: snapkv}\n");
  EXPECT_THAT(reload(), HasSubstr("in force"));
  EXPECT_EQ(ask(""), grpc::StatusCode::OK);
  EXPECT_THAT(program_->read_to("method=Generate"), HasSubstr("policy=streaming_llm"));
  EXPECT_EQ(ask_for_snapkv(), grpc::StatusCode::FAILED_PRECONDITION);
  write_config("policies: {default: snapkv}\n");
  EXPECT_THAT(reload(), HasSubstr("in force"));
  EXPECT_EQ(ask_for_snapkv(), grpc::StatusCode::OK);
}

TEST_F(ReloadTest, TheLevelOfTheLog) {
  start(preset("first"));
  EXPECT_EQ(ask("first"), grpc::StatusCode::OK);
  EXPECT_THAT(program_->read_to("method=Generate"), HasSubstr("code=OK"));
  write_config(preset("second"), "error");
  program_->send(SIGHUP);
  while (ask("second") != grpc::StatusCode::OK) {
  }
  for (int i = 0; i < 3; ++i) EXPECT_EQ(ask("second"), grpc::StatusCode::OK);
  EXPECT_THAT(end(), Not(HasSubstr("code=OK")));
}

}  // namespace
}  // namespace pkv
