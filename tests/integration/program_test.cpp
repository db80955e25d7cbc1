// The program as scripts and Kubernetes use it: options, exit codes, signals.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <string>
#include <vector>

#include "pyramidkv/v1/generation.grpc.pb.h"
#include "tests/support/gguf_writer.h"

namespace pkv {
namespace {

namespace pb = ::pyramidkv::v1;
using ::testing::HasSubstr;

// A running pyramidkv-server; what it prints, both streams together, is read line by line.
class Program {
 public:
  explicit Program(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), PKV_SERVER);
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    std::array<int, 2> pipe_ends;
    EXPECT_EQ(pipe2(pipe_ends.data(), O_CLOEXEC), 0);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, pipe_ends[1], STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, pipe_ends[1], STDERR_FILENO);
    EXPECT_EQ(posix_spawn(&pid_, PKV_SERVER, &actions, nullptr, argv.data(), environ), 0);
    posix_spawn_file_actions_destroy(&actions);
    close(pipe_ends[1]);
    output_ = fdopen(pipe_ends[0], "r");
  }
  ~Program() {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      wait();
    }
    std::fclose(output_);
  }
  // Reads until a line holds `text`; that line, or nothing at the end of the output.
  std::string read_to(const std::string& text) {
    std::array<char, 4096> line;
    while (std::fgets(line.data(), line.size(), output_) != nullptr) {
      if (std::string(line.data()).find(text) != std::string::npos) return line.data();
    }
    return {};
  }
  std::string read_all() {
    std::string all;
    std::array<char, 4096> line;
    while (std::fgets(line.data(), line.size(), output_) != nullptr) all += line.data();
    return all;
  }
  void send(int signal) const { kill(pid_, signal); }
  // The exit code.
  int wait() {
    int status = 0;
    waitpid(pid_, &status, 0);
    pid_ = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

 private:
  pid_t pid_ = 0;
  std::FILE* output_ = nullptr;
};

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
  const Outcome good = run({"--check-config", "--set", "model.path=" + model.path()});
  EXPECT_EQ(good.exit_code, 0) << good.output;
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

class RunningProgram : public ::testing::Test {
 protected:
  RunningProgram()
      : program_({"--set", "model.path=" + model_.path(), "--set", "server.listen=127.0.0.1:0", "--set",
                  "metrics.listen=127.0.0.1:0", "--set", "server.drain_seconds=60"}) {
    const std::string line = program_.read_to(" ready ");
    const size_t begin = line.find("address=") + 8;
    address_ = line.substr(begin, line.find(' ', begin) - begin);
  }

  const test::TempFile model_ = test::make_tiny_llama({.context = 1 << 16});
  Program program_;
  std::string address_;
};

TEST_F(RunningProgram, SigtermEndsWithZero) {
  program_.send(SIGTERM);
  EXPECT_FALSE(program_.read_to("draining").empty());
  EXPECT_EQ(program_.wait(), 0);
}

TEST_F(RunningProgram, ASecondSignalEndsAtOnce) {
  const auto stub = pb::GenerationService::NewStub(grpc::CreateChannel(address_, grpc::InsecureChannelCredentials()));
  pb::GenerateRequest request;
  request.set_prompt("hello");
  request.mutable_sampling()->set_max_tokens(60000);
  request.mutable_sampling()->set_ignore_eos(true);
  grpc::ClientContext context;
  const auto reader = stub->GenerateStream(&context, request);
  pb::GenerateStreamResponse event;
  ASSERT_TRUE(reader->Read(&event));
  program_.send(SIGINT);
  ASSERT_FALSE(program_.read_to("draining").empty());
  program_.send(SIGTERM);
  EXPECT_EQ(program_.wait(), 1);
  context.TryCancel();
}

}  // namespace
}  // namespace pkv
