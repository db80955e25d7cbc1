#include "server/config/config.h"

#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "kernels/status_macros.h"
#include "server/config/config_keys.h"
#include "server/config/config_node.h"
#include "server/config/config_values.h"
#include "server/config/environment.h"

namespace pkv {
namespace {

constexpr uint64_t kMaxPages = std::numeric_limits<int32_t>::max();  // a page's number is an int32

bool is_section(const std::string& path) {
  for (const ConfigKey& key : config_keys()) {
    if (key.name.size() > path.size() && key.name.starts_with(path) && key.name[path.size()] == '.') return true;
  }
  return false;
}

absl::Status unknown_key(const std::string& where, const std::string& name) {
  const ConfigKey* key = nearest_config_key(name);
  return absl::InvalidArgumentError(
      absl::StrCat(where, ": ", name, ": unknown key",
                   key == nullptr ? "" : absl::StrCat("; is ", std::string(key->name), " meant?")));
}

absl::Status set(const ConfigKey& key, const ConfigNode& node, Config& config) {
  PKV_RETURN_IF_ERROR(key.parse(node, config));
  config.places[std::string(key.name)] = node.where;
  return absl::OkStatus();
}

// Applies everything below `node`, whose key is `path` (empty: the whole file).
absl::Status apply(const ConfigNode& node, const std::string& path, Config& config) {
  if (const ConfigKey* key = find_config_key(path)) return set(*key, node, config);
  if (!path.empty() && !is_section(path)) return unknown_key(node.where, path);
  if (!node.is_mapping && !node.scalar.empty()) {
    const std::string name = path.empty() ? "a configuration" : path;
    return absl::InvalidArgumentError(absl::StrCat(node.where, ": ", name, ": must be a mapping of keys"));
  }
  for (const auto& [name, child] : node.entries) {
    const std::string full = path.empty() ? name : absl::StrCat(path, ".", name);
    PKV_RETURN_IF_ERROR(apply(child, full, config));
  }
  return absl::OkStatus();
}

// One key from the text of an option or a variable, of which `where` says which.
absl::Status assign(const ConfigKey& key, const std::string& value, const std::string& where, Config& config) {
  ConfigNode node;
  node.scalar = value;
  if (std::holds_alternative<PresetsKey>(key.type)) {
    PKV_ASSIGN_OR_RETURN(node, parse_yaml(value, where));
  }
  node.where = where;
  return set(key, node, config);
}

absl::Status apply_environment(const std::vector<std::string>& environment, Config& config) {
  PKV_ASSIGN_OR_RETURN(const std::vector<Variable> variables, config_variables(environment));
  for (const Variable& variable : variables) {
    PKV_RETURN_IF_ERROR(assign(*variable.key, variable.value, variable.name, config));
  }
  return absl::OkStatus();
}

absl::Status apply_option(const std::string& assignment, Config& config) {
  const size_t equals = assignment.find('=');
  if (equals == std::string::npos) {
    return absl::InvalidArgumentError(absl::StrCat("--set ", assignment, ": must be key=value"));
  }
  const std::string name = assignment.substr(0, equals);
  const ConfigKey* key = find_config_key(name);
  if (key == nullptr) return unknown_key("--set", name);
  return assign(*key, assignment.substr(equals + 1), "--set", config);
}

// Two addresses of one port that cannot both be listened on: the same host, or one of them every host.
bool same_address(const std::string& a, const std::string& b) {
  const auto host = [](const std::string& address) { return address.substr(0, address.rfind(':')); };
  const auto port = [](const std::string& address) { return parse_integer(address.substr(address.rfind(':') + 1)); };
  const auto is_every_host = [](const std::string& name) { return name == "0.0.0.0" || name == "[::]"; };
  return port(a) == port(b) && port(a) != 0 && (host(a) == host(b) || is_every_host(host(a)) || is_every_host(host(b)));
}

// TLS needs both of its files, and whoever may be reached from outside one of TLS and keys.
absl::Status check_access(const Config& config) {
  const ServerConfig& server = config.server;
  const auto refuse = [&](std::string_view key, std::string_view description) {
    return absl::InvalidArgumentError(config.about(key, description));
  };
  if (!server.tls.cert.empty() && server.tls.key.empty()) {
    return refuse("server.tls.cert", "needs server.tls.key, the private key of that certificate");
  }
  if (!server.tls.key.empty() && server.tls.cert.empty()) return refuse("server.tls.key", "needs server.tls.cert");
  if (!server.tls.client_ca.empty() && server.tls.cert.empty()) {
    return refuse("server.tls.client_ca", "needs server.tls.cert and server.tls.key");
  }
  const std::string& http = config.http.listen;
  if (!http.empty() && server.api_keys.empty() && !server.insecure && !is_local_address(http)) {
    return refuse("http.listen",
                  absl::StrCat("is \"", http,
                               "\", which other machines can reach, and there are no keys: set server.api_keys, or, "
                               "where only those who may use the server can reach it, server.insecure to true"));
  }
  const bool guarded = !server.tls.cert.empty() || !server.api_keys.empty();
  if (guarded || server.insecure || is_local_address(server.listen)) return absl::OkStatus();
  return refuse("server.listen",
                absl::StrCat("is \"", server.listen,
                             "\", which other machines can reach, and there is neither TLS nor keys: set "
                             "server.tls.cert and server.tls.key, or server.api_keys, or, where only those who may use "
                             "the server can reach it, server.insecure to true"));
}

// No two listen at one place.
absl::Status check_addresses(const Config& config) {
  const std::pair<std::string_view, const std::string&> addresses[] = {
      {"server.listen", config.server.listen},
      {"server.health_listen", config.server.health_listen},
      {"http.listen", config.http.listen},
      {"metrics.listen", config.metrics.listen}};
  for (size_t i = 0; i < std::size(addresses); ++i) {
    for (size_t j = 0; j < i; ++j) {
      const auto& [key, address] = addresses[i];
      const auto& [other, taken] = addresses[j];
      if (address.empty() || taken.empty() || !same_address(address, taken)) continue;
      return absl::InvalidArgumentError(config.about(
          key,
          absl::StrCat("is \"", address, "\", which ", std::string(other), " (", taken, ") takes; set another port")));
    }
  }
  return absl::OkStatus();
}

// What no key can know by itself.
absl::Status check_together(const Config& config) {
  PKV_RETURN_IF_ERROR(check_access(config));
  PKV_RETURN_IF_ERROR(check_addresses(config));
  return config.cache.page_bytes == 0 ? absl::OkStatus() : check_pool(config, config.cache.page_bytes);
}

absl::StatusOr<std::string> read_file(const std::string& path) {
  // A directory can be opened, and reads as if it were an empty file.
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) {
    return absl::NotFoundError(absl::StrCat(path, ": is a directory; --config takes a YAML file"));
  }
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  if (!file || !(text << file.rdbuf())) {
    // An empty file also fails the stream operator: nothing was inserted.
    if (file.is_open() && file.peek() == std::ifstream::traits_type::eof()) return std::string();
    return absl::NotFoundError(absl::StrCat(path, ": cannot be read"));
  }
  return text.str();
}

}  // namespace

absl::Status check_pool(const Config& config, int32_t page_bytes) {
  const auto refuse = [&](const std::string& description) {
    return absl::InvalidArgumentError(config.about("cache.pool_bytes", description));
  };
  if (config.cache.pool_bytes < static_cast<uint64_t>(page_bytes)) {
    return refuse(
        absl::StrCat("must hold a page of cache.page_bytes (", page_bytes, "), not ", config.cache.pool_bytes));
  }
  if (config.cache.pool_bytes / static_cast<uint64_t>(page_bytes) > kMaxPages) {
    return refuse(absl::StrCat("must be at most ", kMaxPages, " pages of cache.page_bytes (", page_bytes, "), not ",
                               show_bytes(config.cache.pool_bytes)));
  }
  return absl::OkStatus();
}

std::string Config::about(std::string_view key, std::string_view description) const {
  const auto place = places.find(key);
  return absl::StrCat(place == places.end() ? "" : place->second + ": ", std::string(key), ": ",
                      std::string(description));
}

absl::StatusOr<Config> parse_config(const std::string& text, const ConfigSources& sources) {
  PKV_ASSIGN_OR_RETURN(ConfigNode root, parse_yaml(text, sources.path));
  Config config;
  PKV_RETURN_IF_ERROR(apply(root, "", config));
  PKV_RETURN_IF_ERROR(apply_environment(sources.environment, config));
  for (const std::string& assignment : sources.assignments) {
    PKV_RETURN_IF_ERROR(apply_option(assignment, config));
  }
  PKV_RETURN_IF_ERROR(check_together(config));
  return config;
}

absl::StatusOr<Config> load_config(const ConfigSources& sources) {
  if (sources.path.empty()) return parse_config("", sources);
  PKV_ASSIGN_OR_RETURN(std::string text, read_file(sources.path));
  return parse_config(text, sources);
}

}  // namespace pkv
