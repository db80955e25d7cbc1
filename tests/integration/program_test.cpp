// The program as scripts and Kubernetes use it: options, exit codes, signals, the log.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "pyramidkv/v1/generation.grpc.pb.h"
#include "tests/support/gguf_writer.h"

namespace pkv {
namespace {

namespace pb = ::pyramidkv::v1;
using ::testing::HasSubstr;
using Json = nlohmann::json;

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

class RunningProgram : public ::testing::Test {
 protected:
  explicit RunningProgram(const std::string& format = "text")
      : program_({"--set", "model.path=" + model_.path(), "--set", "server.listen=127.0.0.1:0", "--set",
                  "metrics.listen=", "--set", "server.drain_seconds=60", "--set", "log.format=" + format}) {
    const std::string line = program_.read_to(format == "text" ? " ready " : "\"ready\"");
    if (format == "text") {
      const size_t begin = line.find("address=") + 8;
      address_ = line.substr(begin, line.find(' ', begin) - begin);
    } else {
      address_ = Json::parse(line)["address"];
    }
    stub_ = pb::GenerationService::NewStub(grpc::CreateChannel(address_, grpc::InsecureChannelCredentials()));
  }

  const test::TempFile model_ = test::make_tiny_llama({.context = 1 << 16});
  Program program_;
  std::string address_;
  std::unique_ptr<pb::GenerationService::Stub> stub_;
};

TEST_F(RunningProgram, SigtermEndsWithZero) {
  program_.send(SIGTERM);
  EXPECT_FALSE(program_.read_to("draining").empty());
  EXPECT_EQ(program_.wait(), 0);
}

TEST_F(RunningProgram, SighupEndsNothing) {
  program_.send(SIGHUP);
  EXPECT_THAT(program_.read_to("SIGHUP"), HasSubstr("ignored"));
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

TEST_F(RunningProgram, ATakenPortIsExplained) {
  const Outcome second =
      run({"--set", "model.path=" + model_.path(), "--set", "server.listen=" + address_, "--set", "metrics.listen="});
  EXPECT_EQ(second.exit_code, 1);
  EXPECT_THAT(second.output, HasSubstr("server.listen: " + address_ + ": already in use"));
}

TEST_F(RunningProgram, ASecondSignalEndsAtOnce) {
  pb::GenerateRequest request;
  request.set_prompt("hello");
  request.mutable_sampling()->set_max_tokens(60000);
  request.mutable_sampling()->set_ignore_eos(true);
  grpc::ClientContext context;
  const auto reader = stub_->GenerateStream(&context, request);
  pb::GenerateStreamResponse event;
  ASSERT_TRUE(reader->Read(&event));
  program_.send(SIGINT);
  ASSERT_FALSE(program_.read_to("draining").empty());
  program_.send(SIGTERM);
  EXPECT_EQ(program_.wait(), 1);
  context.TryCancel();
}

class JsonLog : public RunningProgram {
 protected:
  JsonLog() : RunningProgram("json") {}

  static pb::GenerateRequest request(const std::string& id) {
    pb::GenerateRequest request;
    request.set_request_id(id);
    request.set_prompt("a secret in the prompt, which is longer than what is kept of it");
    request.mutable_sampling()->set_max_tokens(5);
    request.mutable_sampling()->set_ignore_eos(true);
    request.mutable_cache_policy()->mutable_snapkv()->set_window_tokens(4);
    request.mutable_cache_policy()->mutable_budget()->set_tokens(16);
    return request;
  }
  grpc::Status generate(const pb::GenerateRequest& request, const std::string& traceparent = "") {
    grpc::ClientContext context;
    if (!traceparent.empty()) context.AddMetadata("traceparent", traceparent);
    pb::GenerateResponse response;
    const grpc::Status status = stub_->Generate(&context, request, &response);
    cache_ = response.cache();
    return status;
  }
  // Ends the program; every line it has written since it was ready. Fails the test where one is no JSON.
  std::vector<Json> lines() {
    stub_.reset();  // the server would wait for the connection of a client that looks at it every few seconds
    program_.send(SIGTERM);
    std::istringstream output(program_.read_all());
    EXPECT_EQ(program_.wait(), 0);
    EXPECT_THAT(output.str(), ::testing::Not(HasSubstr("secret")));
    std::vector<Json> lines;
    for (std::string line; std::getline(output, line);) {
      lines.push_back(Json::parse(line, nullptr, /*allow_exceptions=*/false));
      EXPECT_TRUE(lines.back().is_object()) << line;
    }
    return lines;
  }
  std::vector<Json> calls() {
    std::vector<Json> calls;
    for (const Json& line : lines()) {
      if (line.value("message", "") == "call") calls.push_back(line);
    }
    return calls;
  }

  pb::CacheReport cache_;
};

TEST_F(JsonLog, ALineForACall) {
  const std::string trace = "4bf92f3577b34da6a3ce929d0e0e4736", span = "00f067aa0ba902b7";
  ASSERT_TRUE(generate(request("one"), "00-" + trace + "-" + span + "-01").ok());
  const std::vector<Json> all = calls();
  ASSERT_EQ(all.size(), 1u);
  const Json& call = all[0];
  EXPECT_EQ(call["level"], "info");
  EXPECT_EQ(call["request_id"], "one");
  EXPECT_THAT(call["peer"].get<std::string>(), HasSubstr("127.0.0.1"));
  EXPECT_EQ(call["method"], "Generate");
  EXPECT_EQ(call["policy"], "snapkv");
  EXPECT_TRUE(call["prompt_tokens"].is_number_integer());
  EXPECT_GT(call["prompt_tokens"], 16);
  EXPECT_EQ(call["generated_tokens"], 5);
  EXPECT_NEAR(call["kept_share"].get<double>(), double(cache_.held_bytes()) / double(cache_.full_bytes()), 1e-5);
  EXPECT_NEAR(call["recall"].get<double>(), cache_.recall().mean(), 1e-5);
  EXPECT_LE(call["first_token_seconds"].get<double>(), call["total_seconds"].get<double>());
  EXPECT_EQ(call["code"], "OK");
  EXPECT_FALSE(call.contains("reason"));
  EXPECT_EQ(call["trace_id"], trace);
  EXPECT_EQ(call["span_id"], span);
}

TEST_F(JsonLog, RefusedAndCancelledCallsToo) {
  pb::GenerateRequest wrong = request("wrong");
  wrong.mutable_sampling()->set_top_p(2);
  EXPECT_EQ(generate(wrong, "00-nonsense").error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  pb::GenerateRequest endless = request("endless");
  endless.mutable_sampling()->set_max_tokens(60000);
  {
    grpc::ClientContext context;
    const auto reader = stub_->GenerateStream(&context, endless);
    for (pb::GenerateStreamResponse event; reader->Read(&event) && !event.has_delta();) {
    }
    context.TryCancel();
    reader->Finish();
  }
  const std::vector<Json> all = calls();
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0]["request_id"], "wrong");
  EXPECT_EQ(all[0]["policy"], "none");
  EXPECT_EQ(all[0]["code"], "INVALID_ARGUMENT");
  EXPECT_EQ(all[0]["reason"], "BAD_SAMPLING");
  EXPECT_EQ(all[0]["field"], "sampling.top_p");
  EXPECT_FALSE(all[0].contains("trace_id"));
  EXPECT_EQ(all[1]["request_id"], "endless");
  EXPECT_EQ(all[1]["method"], "GenerateStream");
  EXPECT_EQ(all[1]["code"], "CANCELLED");
  EXPECT_GE(all[1]["generated_tokens"], 1);
}

TEST_F(JsonLog, NothingBreaksIt) {
  EXPECT_TRUE(generate(request("id\x1b[31m\n{\"\xC2\x9B\x7f")).ok());
  // protobuf has something to say about this.
  pb::GenerateRequest bad_text = request("bad");
  bad_text.set_prompt("secret \xFF");
  EXPECT_EQ(generate(bad_text).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  std::vector<std::string> libraries, ids;
  for (const Json& line : lines()) {
    if (line.contains("library")) libraries.push_back(line["library"]);
    if (line.contains("request_id")) ids.push_back(line["request_id"]);
  }
  EXPECT_THAT(libraries, ::testing::Contains("protobuf"));
  EXPECT_THAT(ids, ::testing::Contains("id\x1b[31m\n{\"\xC2\x9B\x7f"));
}

}  // namespace
}  // namespace pkv
