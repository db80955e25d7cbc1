#include "server/program.h"

#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "server/command_line.h"
#include "server/config_check.h"
#include "server/lane_tables.h"
#include "server/life.h"
#include "server/live_settings.h"
#include "server/rpc/library_logs.h"
#include "server/startup_warnings.h"
#include "server/tls_check.h"

namespace pkv {
namespace {

int refuse(const absl::Status& status) {
  std::fprintf(stderr, "pyramidkv-server: %s\n", std::string(status.message()).c_str());
  return kWrongUsage;
}

std::vector<std::string> environment_variables() {
  std::vector<std::string> variables;
  for (char** variable = environ; *variable != nullptr; ++variable) variables.emplace_back(*variable);
  return variables;
}

// The usual 1024 is a few hundred clients; whoever sets a limit on purpose sets the hard one.
void raise_descriptor_limit() {
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

// One line of standard input: on a command line every process could read the key.
int print_key_hash() {
  std::string key;
  std::getline(std::cin, key);
  const absl::StatusOr<std::string> hash = hash_new_key(key);
  if (!hash.ok()) return refuse(hash.status());
  std::printf("%s\n", hash->c_str());
  return 0;
}

int serve(const Config& config, const ConfigSources& sources, const AppOptions& options) {
  const Log log(config.log.level, config.log.format);
  route_library_logs(log);
  raise_descriptor_limit();
  // Blocked before any thread starts, so that all inherit it and the main thread alone takes them.
  const sigset_t signals = set_of({SIGTERM, SIGINT, SIGHUP});
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::signal(SIGPIPE, SIG_IGN);

  absl::StatusOr<std::unique_ptr<App>> app = App::start(config, log, options);
  if (!app.ok()) {
    log.error(std::string(app.status().message()));
    return kFailure;
  }
  return live(**app, config, sources, log);
}

}  // namespace

int run_program(int argc, char** argv, const AppOptions& options) {
  int exit_code = 0;
  const std::optional<CommandLine> line = parse_command_line(argc, argv, exit_code);
  if (!line) return exit_code;
  if (line->hash_key) return print_key_hash();
  const ConfigSources sources{
      .path = line->config_path, .environment = environment_variables(), .assignments = line->assignments};
  const absl::StatusOr<Config> config = load_config(sources);
  if (!config.ok()) return refuse(config.status());
  if (const auto tls = configured_tls(*config); !tls.ok()) return refuse(tls.status());
  absl::StatusOr<std::shared_ptr<const LaneTable>> lane_table = configured_lane_table(*config);
  if (!lane_table.ok()) return refuse(lane_table.status());
  const absl::Status good = make_live_settings(*config, *std::move(lane_table)).status();
  if (!good.ok()) return refuse(good);
  if (line->check_config) {
    if (const absl::Status status = check_on_this_machine(*config); !status.ok()) return refuse(status);
    for (const std::string& warning : startup_warnings(*config, memory_limit())) {
      std::fprintf(stderr, "pyramidkv-server: warning: %s\n", warning.c_str());
    }
    std::printf("the configuration is good%s\n", config->model.path.empty() ? "; model.path is still to be set" : "");
    return 0;
  }
  if (config->model.path.empty()) {
    return refuse(absl::InvalidArgumentError(
        "model.path: has to be set, in the file, by the variable PYRAMIDKV_MODEL__PATH or with "
        "--set model.path=FILE.gguf"));
  }
  return serve(*config, sources, options);
}

}  // namespace pkv
