// The program as scripts and Kubernetes use it: options, exit codes, signals.
#include "tests/integration/program.h"

#include <gmock/gmock.h>

#include <chrono>
#include <filesystem>

namespace pkv {
namespace {

using ::testing::HasSubstr;

struct Outcome {
  std::string output;
  int exit_code;
};

Outcome run(const std::vector<std::string>& arguments) {
  Program program(arguments);
  std::string output = program.read_all();
  return {std::move(output), program.wait()};
}

TEST(Program, VersionAndHelp) {
  const Outcome version = run({"--version"});
  EXPECT_EQ(version.exit_code, 0);
  EXPECT_THAT(version.output, HasSubstr("pyramidkv-server "));
  const Outcome help = run({"--help"});
  EXPECT_EQ(help.exit_code, 0);
  EXPECT_THAT(help.output, HasSubstr("--check-config"));
  EXPECT_THAT(help.output, HasSubstr("scheduler.step_tokens"));
}

TEST(Program, WrongUsageEndsWithTwo) {
  EXPECT_EQ(run({"--no-such-option"}).exit_code, 2);
  EXPECT_EQ(run({"--config", "/nonexistent.yaml"}).exit_code, 2);
  const Outcome key = run({"--set", "server.lisen=127.0.0.1:1"});
  EXPECT_EQ(key.exit_code, 2);
  EXPECT_THAT(key.output, HasSubstr("server.lisen: unknown key"));
  const Outcome preset = run({"--set", "policies.default=fastest", "--check-config"});
  EXPECT_EQ(preset.exit_code, 2);
  EXPECT_THAT(preset.output, HasSubstr("policies.default"));
  const Outcome no_model = run({});
  EXPECT_EQ(no_model.exit_code, 2);
  EXPECT_THAT(no_model.output, HasSubstr("model.path"));
}

TEST(Program, FailuresEndWithOne) {
  const Outcome outcome =
      run({"--set", "model.path=/nonexistent.gguf", "--set", "server.listen=127.0.0.1:0", "--set", "metrics.listen="});
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.output, HasSubstr("/nonexistent.gguf"));
}

TEST(Program, CheckConfigRefusesWhatTheServerCouldNotRun) {
  const auto refusal = [](std::vector<std::string> settings) {
    std::vector<std::string> arguments = {"--check-config"};
    for (std::string& setting : settings) arguments.insert(arguments.end(), {"--set", std::move(setting)});
    const Outcome outcome = run(arguments);
    EXPECT_EQ(outcome.exit_code, 2) << outcome.output;
    return outcome.output;
  };
  EXPECT_THAT(refusal({"model.path=/nonexistent.gguf"}),
              AllOf(HasSubstr("--set: model.path: "), HasSubstr("/nonexistent.gguf"), HasSubstr("name a GGUF file")));
  EXPECT_THAT(refusal({"model.path=/"}), HasSubstr("--set: model.path: "));
  EXPECT_THAT(refusal({"model.path=/dev/null"}), HasSubstr("--set: model.path: "));
  EXPECT_THAT(refusal({"model.path=" + std::string(PKV_CONFIG_DIR) + "/server.yaml"}),
              HasSubstr("--set: model.path: "));
  EXPECT_THAT(refusal({"scheduler.max_waiting=0"}), HasSubstr("scheduler.max_waiting: must be a whole number from 1"));
  EXPECT_THAT(refusal({"runtime.device=cuda:0"}), HasSubstr("--set: runtime.device: "));
  const test::TempFile model = test::make_tiny_llama({.head_dim = 64, .width = 256});
  EXPECT_THAT(refusal({"model.path=" + model.path(), "cache.page_bytes=256"}), HasSubstr("--set: cache.page_bytes: "));
  const test::TempFile odd = test::make_tiny_llama({.head_dim = 12});
  EXPECT_THAT(refusal({"model.path=" + odd.path(), "runtime.device=cpu"}),
              AllOf(HasSubstr("--set: model.path: "), HasSubstr("'llama.attention.key_length' (12)")));
  const Outcome good = run({"--check-config", "--set", "model.path=" + model.path()});
  EXPECT_EQ(good.exit_code, 0) << good.output;
  EXPECT_THAT(good.output, ::testing::Not(HasSubstr("warning")));
  const Outcome risky = run({"--check-config", "--set", "server.listen=0.0.0.0:1", "--set", "server.insecure=true",
                             "--set", "cache.pool_bytes=7TiB"});
  EXPECT_EQ(risky.exit_code, 0) << risky.output;
  EXPECT_THAT(risky.output, AllOf(HasSubstr("warning: server.listen: 0.0.0.0:1 can be reached"),
                                  HasSubstr("warning: cache.pool_bytes: ")));
  const Outcome directory = run({"--check-config", "--config", PKV_CONFIG_DIR});
  EXPECT_EQ(directory.exit_code, 2);
  EXPECT_THAT(directory.output, HasSubstr("is a directory"));
}

TEST(Program, EnvironmentVariablesSetKeys) {
  ASSERT_EQ(setenv("PYRAMIDKV_MODEL__PATH", "/nonexistent.gguf", 1), 0);
  const Outcome model = run({"--check-config"});
  ASSERT_EQ(setenv("PYRAMIDKV_CONFIG", PKV_CONFIG_DIR, 1), 0);
  const Outcome file = run({"--check-config"});
  ASSERT_EQ(unsetenv("PYRAMIDKV_CONFIG"), 0);
  ASSERT_EQ(unsetenv("PYRAMIDKV_MODEL__PATH"), 0);
  EXPECT_EQ(model.exit_code, 2);
  EXPECT_THAT(model.output, HasSubstr("PYRAMIDKV_MODEL__PATH: model.path: "));
  EXPECT_EQ(file.exit_code, 2);
  EXPECT_THAT(file.output, HasSubstr("is a directory"));
}

TEST(Program, ChecksTheFilesInConfig) {
  for (const char* name : {"server.yaml", "exact.yaml", "busy.yaml"}) {
    const Outcome outcome = run({"--config", std::string(PKV_CONFIG_DIR) + "/" + name, "--check-config"});
    EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
  }
}

// A model that takes seconds to load: gigabytes of weights, all of them zeros that are nowhere on the disk.
test::TempFile make_slow_model() {
  constexpr int kLayers = 12;
  constexpr int64_t kWidth = 64, kFeedForward = 1 << 20;
  constexpr uint64_t kMatrixBytes = uint64_t{kWidth} * kFeedForward * sizeof(float);
  test::GgufWriter writer = test::tiny_llama({.layers = kLayers});
  writer.set("llama.feed_forward_length", static_cast<uint32_t>(kFeedForward));
  uint64_t end = (writer.data_bytes() + kMatrixBytes - 1) / kMatrixBytes * kMatrixBytes;
  for (int layer = 0; layer < kLayers; ++layer) {
    for (const char* name : {"ffn_gate", "ffn_up", "ffn_down"}) {
      auto& tensor = writer.tensor("blk." + std::to_string(layer) + "." + name + ".weight");
      const bool down = tensor.name.find("down") != std::string::npos;
      tensor.dims = down ? std::vector{kFeedForward, kWidth} : std::vector{kWidth, kFeedForward};
      tensor.offset = end;
      end += kMatrixBytes;
    }
  }
  test::TempFile file = writer.write();
  std::filesystem::resize_file(file.path(), std::filesystem::file_size(file.path()) + end);
  return file;
}

TEST(Program, ASignalWhileLoadingEndsAtOnce) {
  const test::TempFile model = make_slow_model();
  for (const int signal : {SIGTERM, SIGINT}) {
    Program program(
        {"--set", "model.path=" + model.path(), "--set", "server.listen=127.0.0.1:0", "--set", "metrics.listen="});
    ASSERT_FALSE(program.read_to("listening").empty());
    program.send(signal);
    const std::string rest = program.read_all();
    EXPECT_THAT(rest, HasSubstr("stopped while loading"));
    EXPECT_THAT(rest, ::testing::Not(HasSubstr(" ready ")));
    EXPECT_EQ(program.wait(), 0);
  }
}

TEST_F(RunningProgram, SigtermEndsWithZero) {
  program_.send(SIGTERM);
  EXPECT_FALSE(program_.read_to("draining").empty());
  EXPECT_EQ(program_.wait(), 0);
}

TEST_F(RunningProgram, SighupEndsNothing) {
  program_.send(SIGHUP);
  EXPECT_THAT(program_.read_to("SIGHUP"), HasSubstr("in force"));
  {
    grpc::ClientContext context;
    pb::TokenizeRequest request;
    request.set_text("hello");
    pb::TokenizeResponse response;
    EXPECT_TRUE(stub_->Tokenize(&context, request, &response).ok());
  }
  stub_.reset();
  program_.send(SIGTERM);
  EXPECT_EQ(program_.wait(), 0);
}

// Without metrics, too.
TEST_F(RunningProgram, SigpipeEndsNothing) {
  program_.send(SIGPIPE);
  grpc::ClientContext context;
  pb::GenerateRequest request;
  request.set_prompt("hello");
  pb::GenerateResponse reply;
  EXPECT_TRUE(stub_->Generate(&context, request, &reply).ok());
}

TEST_F(RunningProgram, ATakenPortIsExplained) {
  const Outcome second =
      run({"--set", "model.path=" + model_.path(), "--set", "server.listen=" + address_, "--set", "metrics.listen="});
  EXPECT_EQ(second.exit_code, 1);
  EXPECT_THAT(second.output, HasSubstr("server.listen: " + address_ + ": already in use"));
}

// gRPC 1.51 by itself would never accept again.
TEST_F(RunningProgram, WithoutDescriptorsConnectionsWait) {
  constexpr rlim_t kEnough = 256;
  {  // a context keeps its connection, and nobody reads there that the server ends
    grpc::ClientContext context, later;
    pb::TokenizeRequest request;
    request.set_text("hello");
    pb::TokenizeResponse response;
    program_.limit_files(3);
    const auto other =
        pb::GenerationService::NewStub(grpc::CreateChannel(address_, grpc::InsecureChannelCredentials()));
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(300));
    EXPECT_EQ(other->Tokenize(&context, request, &response).error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
    program_.limit_files(kEnough);
    EXPECT_TRUE(other->Tokenize(&later, request, &response).ok());
  }
  stub_.reset();
  program_.send(SIGTERM);
  EXPECT_EQ(program_.wait(), 0);
}

TEST_F(RunningProgram, ASecondSignalEndsAtOnce) {
  pb::GenerateRequest request;
  request.set_prompt("hello");
  request.mutable_sampling()->set_max_tokens(60000);
  request.mutable_sampling()->set_ignore_eos(true);
  grpc::ClientContext context;
  const auto reader = stub_->GenerateStream(&context, request);
  pb::GenerateStreamResponse event;
  // The second piece is of a later step than the one that admitted the request, so the engine has counted it by then.
  for (int pieces = 0; pieces < 2; pieces += event.has_delta() ? 1 : 0) ASSERT_TRUE(reader->Read(&event));
  program_.send(SIGINT);
  ASSERT_FALSE(program_.read_to("draining").empty());
  program_.send(SIGTERM);
  EXPECT_THAT(program_.read_all(), HasSubstr("second SIGTERM: ending at once, 1 request cut off"));
  EXPECT_EQ(program_.wait(), 1);
  context.TryCancel();
}

class FailingProgram : public RunningProgram {
 protected:
  static constexpr unsigned kPatienceSeconds = 60;

  FailingProgram() : RunningProgram({.file = PKV_FAILING_SERVER, .drain_seconds = "1"}) {}

  // Of tokens without end, the first of which have come.
  std::unique_ptr<grpc::ClientReader<pb::GenerateStreamResponse>> start_stream(grpc::ClientContext& context,
                                                                               pb::GenerateStreamResponse& event) {
    pb::GenerateRequest request;
    request.set_prompt("a secret");
    request.set_request_id("endless");
    request.mutable_sampling()->set_max_tokens(60000);
    request.mutable_sampling()->set_ignore_eos(true);
    auto reader = stub_->GenerateStream(&context, request);
    for (int pieces = 0; pieces < 2; pieces += event.has_delta() ? 1 : 0) EXPECT_TRUE(reader->Read(&event));
    return reader;
  }
};

TEST_F(FailingProgram, AReloadForWhichThereIsNoMemoryIsDoneOnceThereIs) {
  program_.send(SIGRTMIN + 1);
  program_.send(SIGHUP);
  EXPECT_THAT(program_.read_to("SIGHUP"), HasSubstr("in force"));
}

TEST_F(FailingProgram, ADeviceThatFailsEndsWithOne) {
  {
    grpc::ClientContext context;
    pb::GenerateStreamResponse event;
    const auto reader = start_stream(context, event);
    program_.send(SIGUSR1);
    while (reader->Read(&event)) {
    }
    EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::INTERNAL);
  }
  stub_.reset();
  EXPECT_THAT(program_.read_all(), AllOf(HasSubstr("the engine failed, ending"), HasSubstr("the device is lost")));
  EXPECT_EQ(program_.wait(), 1);
}

TEST_F(FailingProgram, ADeviceThatDoesNotAnswerEndsWithOneAndWhatItWasAt) {
  {
    grpc::ClientContext context;
    pb::GenerateStreamResponse event;
    const auto reader = start_stream(context, event);
    program_.send(SIGUSR2);
    program_.send(SIGTERM);
    while (reader->Read(&event)) {
    }
    EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);  // the connection went with the process
  }
  stub_.reset();
  EXPECT_THAT(program_.read_all(), AllOf(HasSubstr("what the engine had when it last moved"),
                                         HasSubstr("request_id=endless phase=decode"), HasSubstr("the engine hangs")));
  EXPECT_EQ(program_.wait(), 1);
}

TEST_F(FailingProgram, ADeviceThatDoesNotAnswerIsToldOfWhileItServes) {
  alarm(kPatienceSeconds);  // ends the test where the log never says so
  grpc::ClientContext context;
  pb::GenerateStreamResponse event;
  const auto reader = start_stream(context, event);
  program_.send(SIGUSR2);
  std::string log = program_.read_to("the engine has work and does not move stalled_seconds=");
  ASSERT_FALSE(log.empty());
  log += program_.read_to("what the engine had when it last moved");
  EXPECT_THAT(log, AllOf(HasSubstr("running=1"), HasSubstr("live_bytes=")));
  log += program_.read_to("stalled request");
  EXPECT_THAT(log, AllOf(HasSubstr("request_id=endless phase=decode policy=full"), HasSubstr("held_bytes=")));
  alarm(0);
  program_.send(SIGKILL);
  log += program_.read_all();
  EXPECT_THAT(log, ::testing::Not(HasSubstr("secret")));
  context.TryCancel();
}

}  // namespace
}  // namespace pkv
