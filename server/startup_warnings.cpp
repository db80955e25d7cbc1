#include "server/startup_warnings.h"

#include <algorithm>
#include <fstream>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/config/config_values.h"

namespace pkv {
namespace {

// The first line of a file that starts with `prefix`, without it.
std::optional<std::string> line_after(const std::string& path, const std::string& prefix) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(prefix)) return line.substr(prefix.size());
  }
  return std::nullopt;
}

// A limit file of a control group; none where it says "max" or is not there.
std::optional<uint64_t> limit_in(const std::string& path) {
  const std::optional<std::string> line = line_after(path, "");
  uint64_t bytes = 0;
  return line && absl::SimpleAtoi(*line, &bytes) ? std::optional(bytes) : std::nullopt;
}

void take_least(std::optional<uint64_t>& least, std::optional<uint64_t> other) {
  if (other && (!least || *other < *least)) least = other;
}

}  // namespace

std::optional<uint64_t> memory_limit(const std::string& root) {
  std::optional<uint64_t> least;
  if (std::optional<std::string> line = line_after(root + "proc/meminfo", "MemTotal:")) {
    const size_t begin = line->find_first_not_of(' ');
    uint64_t kibibytes = 0;
    if (begin != std::string::npos &&
        absl::SimpleAtoi(line->substr(begin, line->find(' ', begin) - begin), &kibibytes)) {
      least = kibibytes << 10;
    }
  }
  // Version 2 of control groups: the process's own and all above it. In a container the root is its own.
  std::string group = line_after(root + "proc/self/cgroup", "0::").value_or("/");
  while (true) {
    take_least(least, limit_in(absl::StrCat(root, "sys/fs/cgroup", group, "/memory.max")));
    const size_t slash = group.rfind('/');
    if (group.size() <= 1 || slash == std::string::npos) break;
    group.resize(std::max<size_t>(slash, 1));
  }
  // Version 1, as a container sees it.
  take_least(least, limit_in(root + "sys/fs/cgroup/memory/memory.limit_in_bytes"));
  return least;
}

std::vector<std::string> startup_warnings(const Config& config, std::optional<uint64_t> memory) {
  std::vector<std::string> warnings;
  const bool plain = config.server.tls.cert.empty() && !is_local_address(config.server.listen);
  if (plain && config.server.api_keys.empty()) {
    warnings.push_back(absl::StrCat(
        "server.listen: ", config.server.listen,
        " can be reached from other machines, without encryption and without keys: whoever reaches it may use it"));
  } else if (plain) {
    warnings.push_back(absl::StrCat("server.listen: ", config.server.listen,
                                    " can be reached from other machines without encryption: keys, prompts and "
                                    "answers can be read on the way; set server.tls.cert and server.tls.key"));
  }
  const bool plain_http = config.server.tls.cert.empty() || !config.http.tls;
  if (plain_http && !config.http.listen.empty() && !is_local_address(config.http.listen)) {
    warnings.push_back(absl::StrCat("http.listen: ", config.http.listen,
                                    " can be reached from other machines without encryption: keys, prompts and "
                                    "answers can be read on the way"));
  }
  if (!config.metrics.listen.empty() && !is_local_address(config.metrics.listen)) {
    warnings.push_back(absl::StrCat("metrics.listen: ", config.metrics.listen,
                                    " can be reached from other machines: whoever reaches it may read the metrics"));
  }
  if (memory && config.cache.pool_bytes > *memory) {
    warnings.push_back(absl::StrCat("cache.pool_bytes: ", config.cache.pool_bytes,
                                    " bytes are more than the memory this process may use, ", *memory,
                                    " bytes: it may be killed when the pool fills"));
  }
  return warnings;
}

}  // namespace pkv
