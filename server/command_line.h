// The options of pyramidkv-server. A translation unit of its own, since CLI11 is slow to compile.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace pkv {

struct CommandLine {
  std::string config_path;               // empty: defaults only
  std::vector<std::string> assignments;  // key=value, in order
  bool check_config = false;
  bool hash_key = false;
};

// Nothing where the process is to end now with `exit_code`: --help and --version (0), or wrong usage (2), having
// printed why.
std::optional<CommandLine> parse_command_line(int argc, char** argv, int& exit_code);

}  // namespace pkv
