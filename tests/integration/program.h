// The real program in a process of its own, for tests of its options, signals and log.
#pragma once

#include <fcntl.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "pyramidkv/v1/generation.grpc.pb.h"
#include "tests/support/gguf_writer.h"

namespace pkv {

namespace pb = ::pyramidkv::v1;
using Json = nlohmann::json;

// A running pyramidkv-server; what it prints, both streams together, is read line by line.
class Program {
 public:
  explicit Program(std::vector<std::string> arguments, const std::string& file = PKV_SERVER) {
    arguments.insert(arguments.begin(), file);
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    std::array<int, 2> pipe_ends;
    EXPECT_EQ(pipe2(pipe_ends.data(), O_CLOEXEC), 0);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, pipe_ends[1], STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, pipe_ends[1], STDERR_FILENO);
    EXPECT_EQ(posix_spawn(&pid_, file.c_str(), &actions, nullptr, argv.data(), environ), 0);
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
  // Lets it open no more files than so many at a time.
  void limit_files(rlim_t count) const {
    rlimit limit = {};
    EXPECT_EQ(prlimit(pid_, RLIMIT_NOFILE, nullptr, &limit), 0);
    limit.rlim_cur = count;
    EXPECT_EQ(prlimit(pid_, RLIMIT_NOFILE, &limit, nullptr), 0);
  }
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

struct ProgramOptions {
  std::string file = PKV_SERVER;
  std::string format = "text";  // of the log
  std::string level = "info";
  std::string drain_seconds = "60";
  std::string chat_template = {};  // empty: the tiny model's
};

// One that serves a tiny model on free ports.
class RunningProgram : public ::testing::Test {
 protected:
  explicit RunningProgram(const ProgramOptions& options = {})
      : model_(make_model(options.chat_template)),
        program_({"--set", "model.path=" + model_.path(), "--set", "server.listen=127.0.0.1:0", "--set",
                  "http.listen=127.0.0.1:0", "--set", "metrics.listen=", "--set",
                  "server.drain_seconds=" + options.drain_seconds, "--set", "log.format=" + options.format, "--set",
                  "log.level=" + options.level},
                 options.file) {
    const std::string line = program_.read_to(options.format == "text" ? " ready " : "\"ready\"");
    if (options.format == "text") {
      const size_t begin = line.find("address=") + 8;
      address_ = line.substr(begin, line.find(' ', begin) - begin);
    } else {
      const Json ready = Json::parse(line);
      address_ = ready["address"];
      http_address_ = ready["http"];
    }
    stub_ = pb::GenerationService::NewStub(grpc::CreateChannel(address_, grpc::InsecureChannelCredentials()));
  }
  static test::TempFile make_model(const std::string& chat_template) {
    test::GgufWriter model = test::tiny_llama({.context = 1 << 16});
    if (!chat_template.empty()) model.set("tokenizer.chat_template", chat_template);
    return model.write();
  }

  const test::TempFile model_;
  Program program_;
  std::string address_;
  std::string http_address_;  // told by a log in JSON
  std::unique_ptr<pb::GenerationService::Stub> stub_;
};

}  // namespace pkv
