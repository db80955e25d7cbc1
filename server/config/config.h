// The server's configuration, typed, and how it is loaded: defaults, then a YAML file, then environment variables, then
// --set options. One table of keys (config_keys.h) drives all of it.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/entry_format.h"

namespace pkv {

// Of the gRPC services and OpenAI's API, PEM files. Without `cert` they speak plain text.
struct TlsConfig {
  std::string cert;
  std::string key;
  std::string client_ca;  // empty: clients need no certificate
};

struct ServerConfig {
  std::string listen = "127.0.0.1:50051";
  bool reflection = true;
  double drain_seconds = 30;
  int32_t preparation_threads = 2;
  uint64_t max_waiting_bytes = uint64_t{256} << 20;
  uint64_t max_text_bytes = uint64_t{4} << 20;
  uint64_t max_unread_bytes = uint64_t{4} << 20;
  double max_unread_seconds = 60;
  std::string api_keys;  // a file; empty: everybody may call
  TlsConfig tls;
  bool insecure = false;
  std::string health_listen;  // empty: no address of its own
  uint64_t max_message_bytes = uint64_t{16} << 20;
  uint64_t max_buffer_bytes = uint64_t{1} << 30;
  int32_t max_connections = 4096;
  int32_t max_streams = 1024;
  int32_t max_watchers = 64;
};

// OpenAI's API.
struct HttpConfig {
  std::string listen;  // empty: it is not served
  bool tls = true;     // where the gRPC services have it
  int32_t max_connections = 1024;
  uint64_t max_header_bytes = uint64_t{16} << 10;
  uint64_t max_body_bytes = uint64_t{16} << 20;
  double idle_seconds = 60;
};

struct ModelConfig {
  std::string path;
  std::string id;          // empty: the file's name without its ending
  std::string lane_table;  // empty: none
};

struct CacheConfig {
  uint64_t pool_bytes = uint64_t{512} << 20;
  KvDtype dtype = KvDtype::kF16;
  int32_t page_bytes = 0;  // 0: the backend's choice
};

struct RuntimeConfig {
  std::string device = "auto";   // auto, cpu, reference, cuda:N
  std::string compute = "auto";  // auto, float32, fast
  int32_t threads = 0;
  std::string isa = "auto";
  bool graphs = true;
  uint64_t workspace_bytes = uint64_t{1} << 30;
};

struct SchedulerConfig {
  int32_t max_running = 64;
  int32_t max_waiting = 256;
  int32_t max_waiting_tokens = 1 << 22;
  int32_t step_tokens = 256;
};

struct MetricsConfig {
  std::string listen = "127.0.0.1:9464";  // empty: no metrics
  bool layers = true;
};

struct LogConfig {
  std::string level = "info";
  std::string format = "text";
};

// A named cache policy, as it is written. Keys and values are checked where policies are known, by PolicyCatalog.
struct PresetSetting {
  std::string key;  // policy, tokens, window_tokens, ...
  std::string value;
  std::string where;  // "server.yaml:31", for messages
};
struct PolicyPreset {
  std::string name;
  std::string where;
  std::vector<PresetSetting> settings;
};

struct PoliciesConfig {
  std::string default_name = "full";
  double default_keep_ratio = 0.125;
  std::string disabled;  // names of policies, commas between them
  std::vector<PolicyPreset> presets;
};

struct Config {
  ServerConfig server;
  HttpConfig http;
  ModelConfig model;
  CacheConfig cache;
  RuntimeConfig runtime;
  SchedulerConfig scheduler;
  MetricsConfig metrics;
  LogConfig log;
  PoliciesConfig policies;

  // Where each key that is not at its default was set: "server.yaml:12", "PYRAMIDKV_MODEL__PATH", "--set".
  std::map<std::string, std::string, std::less<>> places;
  // "server.yaml:12: model.path: `description`", for refusals that need more than the value.
  std::string about(std::string_view key, std::string_view description) const;
};

// Whether cache.pool_bytes has a possible number of pages, once their size is known; INVALID_ARGUMENT naming the key.
absl::Status check_pool(const Config& config, int32_t page_bytes);

// Where a configuration comes from; later ones win.
struct ConfigSources {
  std::string path;                      // YAML file; empty: none
  std::vector<std::string> environment;  // NAME=value, as in environ; what is not the server's is passed over
  std::vector<std::string> assignments;  // key=value as given to --set, in order
};

// INVALID_ARGUMENT naming file and line, variable or --set, and the key, for an unknown or repeated key, a wrong type
// or a value out of range; NOT_FOUND for a file that is missing or is none.
absl::StatusOr<Config> load_config(const ConfigSources& sources);

// As load_config, from YAML text; sources.path stands for the file in messages.
absl::StatusOr<Config> parse_config(const std::string& text, const ConfigSources& sources);

}  // namespace pkv
