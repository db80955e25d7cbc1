// pyramidkv-server: configuration in, server out. Ends with 0, with 1 for a failure, with 2 for wrong usage or
// configuration.
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <ctime>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "server/app.h"
#include "server/command_line.h"
#include "server/config_check.h"

namespace pkv {
namespace {

constexpr int kFailure = 1;
constexpr int kWrongUsage = 2;
constexpr long kEngineCheckNanoseconds = 500'000'000;

int refuse(const absl::Status& status) {
  std::fprintf(stderr, "pyramidkv-server: %s\n", std::string(status.message()).c_str());
  return kWrongUsage;
}

std::vector<std::string> environment_variables() {
  std::vector<std::string> variables;
  for (char** variable = environ; *variable != nullptr; ++variable) variables.emplace_back(*variable);
  return variables;
}

sigset_t stop_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  return signals;
}

// Returns at the first SIGTERM or SIGINT, or when the engine has failed.
void wait_for_end(const App& app, const sigset_t& signals) {
  const timespec interval{.tv_sec = 0, .tv_nsec = kEngineCheckNanoseconds};
  while (!app.engine_failed() && sigtimedwait(&signals, nullptr, &interval) < 0) {
  }
}

// From now on a signal ends the process at once.
void end_at_next_signal(const sigset_t& signals) {
  std::thread([signals] {
    int signal = 0;
    sigwait(&signals, &signal);
    _exit(kFailure);
  }).detach();
}

int serve(const Config& config) {
  const Log log(config.log.level, config.log.format);
  // Blocked before any thread starts, so that all inherit it and the main thread alone takes them.
  const sigset_t signals = stop_signals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  absl::StatusOr<std::unique_ptr<App>> app = App::start(config, log);
  if (!app.ok()) {
    log.error(std::string(app.status().message()));
    return kFailure;
  }
  if (const absl::Status status = (*app)->load(); !status.ok()) {
    log.error(std::string(status.message()));
    return kFailure;
  }
  wait_for_end(**app, signals);
  end_at_next_signal(signals);
  const bool failed = (*app)->engine_failed();
  log.info(failed ? "the engine failed, ending" : "draining",
           {{"drain_seconds", std::to_string(config.server.drain_seconds)}});
  (*app)->stop(failed ? absl::Now() : absl::Now() + absl::Seconds(config.server.drain_seconds));
  log.info("stopped");
  return failed ? kFailure : 0;
}

int run(int argc, char** argv) {
  int exit_code = 0;
  const std::optional<CommandLine> line = parse_command_line(argc, argv, exit_code);
  if (!line) return exit_code;
  const absl::StatusOr<Config> config = load_config(
      {.path = line->config_path, .environment = environment_variables(), .assignments = line->assignments});
  if (!config.ok()) return refuse(config.status());
  const absl::StatusOr<PolicyCatalog> policies = PolicyCatalog::create(config->policies, config->cache.dtype);
  if (!policies.ok()) return refuse(policies.status());
  if (line->check_config) {
    if (const absl::Status status = check_on_this_machine(*config); !status.ok()) return refuse(status);
    std::printf("the configuration is good%s\n", config->model.path.empty() ? "; model.path is still to be set" : "");
    return 0;
  }
  if (config->model.path.empty()) {
    return refuse(absl::InvalidArgumentError(
        "model.path: has to be set, in the file, by the variable PYRAMIDKV_MODEL__PATH or with "
        "--set model.path=FILE.gguf"));
  }
  return serve(*config);
}

}  // namespace
}  // namespace pkv

int main(int argc, char** argv) { return pkv::run(argc, argv); }
