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

// One that serves a tiny model on a free port.
class RunningProgram : public ::testing::Test {
 protected:
  explicit RunningProgram(const std::string& format = "text", const std::string& file = PKV_SERVER,
                          const std::string& level = "info", const std::string& drain_seconds = "60")
      : program_({"--set", "model.path=" + model_.path(), "--set", "server.listen=127.0.0.1:0", "--set",
                  "metrics.listen=", "--set", "server.drain_seconds=" + drain_seconds, "--set", "log.format=" + format,
                  "--set", "log.level=" + level},
                 file) {
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

}  // namespace pkv
