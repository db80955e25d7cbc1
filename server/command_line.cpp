#include "server/command_line.h"

#include <CLI/CLI.hpp>

#include "server/config/config_keys.h"
#include "server/telemetry/version.h"

namespace pkv {
namespace {

constexpr int kWrongUsage = 2;

// Every key with its meaning, default and range, from the table of keys.
std::string describe_keys() {
  std::string text =
      "Configuration keys, in the file, as environment variables (cache.pool_bytes is PYRAMIDKV_CACHE__POOL_BYTES)\n"
      "or with --set; a variable overrides the file, --set both:\n";
  const Config defaults;
  for (const ConfigKey& key : config_keys()) {
    text.append("  ").append(key.name).append(" = ").append(key.show(defaults)).append("\n");
    text.append("      ").append(key.documentation).append("\n");
    text.append("      ").append(key.range()).append("\n");
  }
  return text;
}

}  // namespace

std::optional<CommandLine> parse_command_line(int argc, char** argv, int& exit_code) {
  CommandLine line;
  CLI::App app("Serves a language model over gRPC, every request with a key/value-cache budget of its own.",
               "pyramidkv-server");
  app.add_option("--config", line.config_path, "YAML file; without it every key has its default")
      ->type_name("FILE")
      ->envname("PYRAMIDKV_CONFIG");
  app.add_option("--set", line.assignments, "Sets one key, after file and variables; may be repeated")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  app.add_flag("--check-config", line.check_config,
               "Checks whether this machine could run the configuration, and ends");
  app.add_flag(
      "--hash-key", line.hash_key,
      "Reads an API key from standard input, prints its hash for the file that server.api_keys names, and ends");
  app.set_version_flag("--version", "pyramidkv-server " + std::string(version()));
  app.footer(describe_keys());
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    exit_code = app.exit(error) == 0 ? 0 : kWrongUsage;
    return std::nullopt;
  }
  return line;
}

}  // namespace pkv
