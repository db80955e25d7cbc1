#include "server/config/config_keys.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/config/config_values.h"

namespace pkv {
namespace {

constexpr int64_t kMaxCount = 1 << 20;
constexpr uint64_t kMaxBytes = uint64_t{1} << 50;
constexpr size_t kMostTypos = 4;  // further away, a name means nothing that could be guessed

template <std::string_view const&... choices>
bool one_of(std::string_view text) {
  return ((text == choices) || ...);
}
constexpr std::string_view kAuto = "auto", kCpu = "cpu", kReference = "reference", kFloat32 = "float32", kFast = "fast";
constexpr std::string_view kScalar = "scalar", kAvx2 = "avx2", kAvx512 = "avx512", kAvx512Vnni = "avx512_vnni",
                           kAvx512Bf16 = "avx512_bf16", kAmxBf16 = "amx_bf16";
constexpr std::string_view kTrace = "trace", kDebug = "debug", kInfo = "info", kWarn = "warn", kError = "error";
constexpr std::string_view kText = "text", kJson = "json";

bool is_device(std::string_view text) {
  if (one_of<kAuto, kCpu, kReference>(text)) return true;
  if (!text.starts_with("cuda:")) return false;
  const std::optional<int64_t> number = parse_integer(text.substr(5));
  return number && *number >= 0;
}

bool is_optional_listen_address(std::string_view text) { return text.empty() || is_listen_address(text); }
bool is_name(std::string_view text) { return !text.empty(); }
bool is_printable(std::string_view text) {
  return std::none_of(text.begin(), text.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; });
}

constexpr bool kLive = true;

const std::array kKeys = std::to_array<ConfigKey>({
    {"server.listen", "Address of the gRPC services. Port 0 takes a free one, which the log names.",
     TextKey{"HOST:PORT", is_listen_address, [](Config& c) -> std::string& { return c.server.listen; }}},
    {"server.reflection", "Whether clients may ask for the service definitions (gRPC server reflection).",
     BooleanKey{[](Config& c) -> bool& { return c.server.reflection; }}},
    {"server.drain_seconds", "After SIGTERM: how long running requests may go on before they are cancelled.",
     RealKey{0, 86400, false, [](Config& c) -> double& { return c.server.drain_seconds; }}, kLive},
    {"server.preparation_threads",
     "Threads that parse, tokenise and plan requests, beside those that compute; one more does so with large ones.",
     IntegerKey{1, 256, [](Config& c) -> int32_t& { return c.server.preparation_threads; }}},
    {"server.max_waiting_bytes",
     "Of all requests that wait (scheduler.max_waiting), as they came; further ones are refused with "
     "RESOURCE_EXHAUSTED.",
     BytesKey{1 << 10, kMaxBytes, [](Config& c) -> uint64_t& { return c.server.max_waiting_bytes; }}, kLive},
    {"server.max_text_bytes", "Of one text or chat to be tokenised; a longer one is refused with INVALID_ARGUMENT.",
     BytesKey{1 << 10, kMaxBytes, [](Config& c) -> uint64_t& { return c.server.max_text_bytes; }}, kLive},
    {"server.max_unread_bytes",
     "Of one streamed answer: what its client may leave unread before the call is ended with RESOURCE_EXHAUSTED.",
     BytesKey{1 << 10, kMaxBytes, [](Config& c) -> uint64_t& { return c.server.max_unread_bytes; }}, kLive},
    {"server.max_unread_seconds",
     "How long a gRPC client may take to read a message; longer, and its call is cancelled. http.idle_seconds is the "
     "same over HTTP.",
     RealKey{0, 86400, true, [](Config& c) -> double& { return c.server.max_unread_seconds; }}, kLive},
    {"server.api_keys",
     "File of the keys that callers need, by their SHA-256 hashes (docs/security.md). Empty: everybody may call.",
     TextKey{"a file or empty", nullptr, [](Config& c) -> std::string& { return c.server.api_keys; }}, kLive},
    {"server.tls.cert",
     "Certificate of the gRPC services and of OpenAI's API, with those that lead to its authority; PEM. Read again "
     "when it changes. Empty: "
     "no TLS.",
     TextKey{"a file or empty", nullptr, [](Config& c) -> std::string& { return c.server.tls.cert; }}},
    {"server.tls.key", "Its private key, PEM without a passphrase.",
     TextKey{"a file or empty", nullptr, [](Config& c) -> std::string& { return c.server.tls.key; }}},
    {"server.tls.client_ca", "Authorities of the certificates that clients then need; PEM. Empty: they need none.",
     TextKey{"a file or empty", nullptr, [](Config& c) -> std::string& { return c.server.tls.client_ca; }}},
    {"server.insecure",
     "Whether server.listen may be reachable from other machines without TLS and without keys, for whoever reaches it.",
     BooleanKey{[](Config& c) -> bool& { return c.server.insecure; }}},
    {"server.health_listen",
     "One more address, of grpc.health.v1.Health alone, without TLS and keys: for probes. Empty: none.",
     TextKey{"HOST:PORT or empty", is_optional_listen_address,
             [](Config& c) -> std::string& { return c.server.health_listen; }}},
    {"server.max_message_bytes", "Of one gRPC request or reply.",
     BytesKey{1 << 16, 1 << 30, [](Config& c) -> uint64_t& { return c.server.max_message_bytes; }}},
    {"server.max_buffer_bytes",
     "What gRPC may hold of requests and replies of all connections; beyond it calls end with RESOURCE_EXHAUSTED.",
     BytesKey{1 << 24, kMaxBytes, [](Config& c) -> uint64_t& { return c.server.max_buffer_bytes; }}},
    {"server.max_connections", "gRPC connections at once; further ones are closed at once, and may be tried again.",
     IntegerKey{1, kMaxCount, [](Config& c) -> int32_t& { return c.server.max_connections; }}},
    {"server.max_streams", "Calls of one connection at once; further ones wait in the client.",
     IntegerKey{1, kMaxCount, [](Config& c) -> int32_t& { return c.server.max_streams; }}},
    {"server.max_watchers", "Streams of WatchStats at once.",
     IntegerKey{1, kMaxCount, [](Config& c) -> int32_t& { return c.server.max_watchers; }}, kLive},
    {"http.listen",
     "Address of OpenAI's API: /v1/completions, /v1/chat/completions, /v1/models. Empty: it is not served.",
     TextKey{"HOST:PORT or empty", is_optional_listen_address,
             [](Config& c) -> std::string& { return c.http.listen; }}},
    {"http.tls", "Whether it speaks TLS where server.tls.cert is set. false: plain text, for a proxy before it.",
     BooleanKey{[](Config& c) -> bool& { return c.http.tls; }}},
    {"http.max_connections", "Connections at once; the idle ones make room for further ones.",
     IntegerKey{1, kMaxCount, [](Config& c) -> int32_t& { return c.http.max_connections; }}},
    {"http.max_header_bytes", "Of the head of one request.",
     BytesKey{1 << 10, 1 << 20, [](Config& c) -> uint64_t& { return c.http.max_header_bytes; }}},
    {"http.max_body_bytes", "Of one request; four times as much of all that are arriving at once.",
     BytesKey{1 << 10, 1 << 30, [](Config& c) -> uint64_t& { return c.http.max_body_bytes; }}},
    {"http.idle_seconds",
     "How long a connection may be idle, a request may take to arrive, and a part of an answer to be read.",
     RealKey{0, 86400, true, [](Config& c) -> double& { return c.http.idle_seconds; }}},
    {"model.path", "The model, a GGUF file. Has to be set: here, with --set, or by its variable.",
     TextKey{"a file", nullptr, [](Config& c) -> std::string& { return c.model.path; }}},
    {"model.id", "The model's name in requests and replies. Empty: the file's name without its ending.",
     TextKey{"text without control characters", is_printable, [](Config& c) -> std::string& { return c.model.id; }}},
    {"model.lane_table",
     "The model's lane table, a file: shares of a budget for its KV heads, which the policy funnel divides by. Empty: "
     "none.",
     TextKey{"a file", nullptr, [](Config& c) -> std::string& { return c.model.lane_table; }}},
    {"cache.pool_bytes", "Key/value-cache memory of all requests together. Costs nothing until it is used.",
     BytesKey{1 << 16, kMaxBytes, [](Config& c) -> uint64_t& { return c.cache.pool_bytes; }}},
    {"cache.dtype", "Format of cache entries where neither request nor policy (funnel: k8v4) has one.",
     KvDtypeKey{[](Config& c) -> KvDtype& { return c.cache.dtype; }}},
    {"cache.page_bytes",
     "Bytes of one cache page, which holds entries of one KV head of one layer of one request. 0: the device's choice.",
     IntegerKey{256, 1 << 24, [](Config& c) -> int32_t& { return c.cache.page_bytes; }, 64, /*or_zero=*/true}},
    {"runtime.device",
     "What computes: auto is the first GPU where one can be used, else cpu (the log says why); reference is slow, "
     "plain "
     "code to compare with.",
     TextKey{"auto, cpu, reference, cuda:N", is_device, [](Config& c) -> std::string& { return c.runtime.device; }}},
    {"runtime.compute",
     "float32: the exact mode, dequantised weights and every product in float32; auto: kernels that round as little as "
     "costs no time; fast: prompts a tenth to a fifth faster, rounded more.",
     TextKey{"auto, float32, fast", one_of<kAuto, kFloat32, kFast>,
             [](Config& c) -> std::string& { return c.runtime.compute; }}},
    {"runtime.threads", "Threads that compute. 0: one per available core.",
     IntegerKey{0, 1024, [](Config& c) -> int32_t& { return c.runtime.threads; }}},
    {"runtime.isa",
     "Highest instruction-set path of the cpu device. auto: all that the machine has, and of several that serve the "
     "same, the one that a measurement of some milliseconds at start finds faster (logged as the device).",
     TextKey{"auto, scalar, avx2, avx512, avx512_vnni, avx512_bf16, amx_bf16",
             one_of<kAuto, kScalar, kAvx2, kAvx512, kAvx512Vnni, kAvx512Bf16, kAmxBf16>,
             [](Config& c) -> std::string& { return c.runtime.isa; }}},
    {"runtime.graphs",
     "On a GPU, decode steps are recorded once for every eight sequences and then replayed as CUDA graphs. false: the "
     "host asks for every kernel of every step.",
     BooleanKey{[](Config& c) -> bool& { return c.runtime.graphs; }}},
    {"runtime.workspace_bytes",
     "Memory beside the cache: for prompts that are being read (residual streams), and for what decides evictions "
     "while "
     "tokens are generated (budgets of scope TOTAL). Requests beyond it wait.",
     BytesKey{1 << 16, kMaxBytes, [](Config& c) -> uint64_t& { return c.runtime.workspace_bytes; }}},
    {"scheduler.max_running", "Requests that may run at once; a comparison of N policies counts as 1 + 2 N.",
     IntegerKey{1, kMaxCount, [](Config& c) -> int32_t& { return c.scheduler.max_running; }}},
    {"scheduler.max_waiting", "Requests that may wait; further ones are refused with RESOURCE_EXHAUSTED.",
     IntegerKey{1, kMaxCount, [](Config& c) -> int32_t& { return c.scheduler.max_waiting; }}, kLive},
    {"scheduler.max_waiting_tokens",
     "Tokens of the prompts of all requests that wait; further ones are refused with RESOURCE_EXHAUSTED.",
     IntegerKey{1, 1 << 30, [](Config& c) -> int32_t& { return c.scheduler.max_waiting_tokens; }}, kLive},
    {"scheduler.step_tokens",
     "Rows of one engine step at most: a chunk of a prompt plus one token of every running answer.",
     IntegerKey{1, 1 << 16, [](Config& c) -> int32_t& { return c.scheduler.step_tokens; }}},
    {"metrics.listen",
     "Address of plain HTTP: /metrics for Prometheus, /healthz, /readyz. Empty: none of it is served.",
     TextKey{"HOST:PORT or empty", is_optional_listen_address,
             [](Config& c) -> std::string& { return c.metrics.listen; }}},
    {"metrics.layers", "Whether the bytes held are also exported layer by layer: one series per policy and layer.",
     BooleanKey{[](Config& c) -> bool& { return c.metrics.layers; }}},
    {"log.level", "Least severe messages to log.",
     TextKey{"trace, debug, info, warn, error", one_of<kTrace, kDebug, kInfo, kWarn, kError>,
             [](Config& c) -> std::string& { return c.log.level; }},
     kLive},
    {"log.format", "One line per message on standard error: text for people, json for machines.",
     TextKey{"text, json", one_of<kText, kJson>, [](Config& c) -> std::string& { return c.log.format; }}},
    {"policies.default", "Cache policy or preset of requests that name none.",
     TextKey{"a policy or preset", is_name, [](Config& c) -> std::string& { return c.policies.default_name; }}, kLive},
    {"policies.default_keep_ratio", "Share of the prompt that is kept where a request names a policy but no budget.",
     RealKey{0, 1, true, [](Config& c) -> double& { return c.policies.default_keep_ratio; }}, kLive},
    {"policies.disabled",
     "Policies that no request may have, by their names with commas between them; they are refused with "
     "FAILED_PRECONDITION.",
     TextKey{"policies or empty", nullptr, [](Config& c) -> std::string& { return c.policies.disabled; }}, kLive},
    {"policies.presets", "Named policies that requests can ask for (cache_policy.preset).", PresetsKey{}, kLive},
});

// The key's value read into its member; an empty result means the text is no such value.
struct Reader {
  std::string_view text;
  Config& config;

  bool operator()(const IntegerKey& key) const {
    const std::optional<int64_t> value = parse_integer(text);
    if (!value) return false;
    const bool in_range = *value >= key.min && *value <= key.max && *value % key.multiple_of == 0;
    if (!in_range && !(key.or_zero && *value == 0)) return false;
    key.field(config) = static_cast<int32_t>(*value);
    return true;
  }
  bool operator()(const RealKey& key) const {
    const std::optional<double> value = parse_real(text);
    if (!value || *value < key.min || *value > key.max || (key.above_min && *value == key.min)) return false;
    key.field(config) = *value;
    return true;
  }
  bool operator()(const BytesKey& key) const {
    const std::optional<uint64_t> value = parse_bytes(text);
    if (!value || *value < key.min || *value > key.max) return false;
    key.field(config) = *value;
    return true;
  }
  bool operator()(const BooleanKey& key) const {
    const std::optional<bool> value = parse_boolean(text);
    if (value) key.field(config) = *value;
    return value.has_value();
  }
  bool operator()(const TextKey& key) const {
    if (key.accepts != nullptr && !key.accepts(text)) return false;
    key.field(config) = std::string(text);
    return true;
  }
  bool operator()(const KvDtypeKey& key) const {
    for (const EntryFormat& format : kEntryFormats.rows) {
      if (text != format.name) continue;
      key.field(config) = format.id;
      return true;
    }
    return false;
  }
  bool operator()(const PresetsKey&) const { return false; }
};

struct Ranger {
  std::string operator()(const IntegerKey& key) const {
    return absl::StrCat(key.or_zero ? "0 or " : "", "a whole number from ", key.min, " to ", key.max,
                        key.multiple_of == 1 ? "" : absl::StrCat(", a multiple of ", key.multiple_of));
  }
  std::string operator()(const RealKey& key) const {
    return absl::StrCat("a number ", key.above_min ? "above " : "from ", show_real(key.min),
                        key.above_min ? ", at most " : " to ", show_real(key.max));
  }
  std::string operator()(const BytesKey& key) const {
    return absl::StrCat("bytes, with or without a unit (512MiB), from ", show_bytes(key.min), " to ",
                        show_bytes(key.max));
  }
  std::string operator()(const BooleanKey&) const { return "true, false"; }
  std::string operator()(const TextKey& key) const { return std::string(key.range); }
  std::string operator()(const KvDtypeKey&) const {
    std::string names;
    for (const EntryFormat& format : kEntryFormats.rows)
      absl::StrAppend(&names, names.empty() ? "" : ", ", format.name);
    return names;
  }
  std::string operator()(const PresetsKey&) const { return "a mapping of names to policies"; }
};

struct Shower {
  Config& config;
  std::string operator()(const IntegerKey& key) const { return std::to_string(key.field(config)); }
  std::string operator()(const RealKey& key) const { return show_real(key.field(config)); }
  std::string operator()(const BytesKey& key) const { return show_bytes(key.field(config)); }
  std::string operator()(const BooleanKey& key) const { return key.field(config) ? "true" : "false"; }
  std::string operator()(const TextKey& key) const { return key.field(config).empty() ? "\"\"" : key.field(config); }
  std::string operator()(const KvDtypeKey& key) const { return entry_format(key.field(config)).name; }
  std::string operator()(const PresetsKey&) const {
    std::string names;
    for (const PolicyPreset& preset : config.policies.presets)
      absl::StrAppend(&names, names.empty() ? "" : ", ", preset.name);
    return absl::StrCat("{", names, "}");
  }
};

// Named policies, only by their form.
absl::Status parse_presets(const ConfigNode& node, std::vector<PolicyPreset>& presets) {
  const auto refuse = [](const ConfigNode& at, const std::string& key, const char* description) {
    return absl::InvalidArgumentError(absl::StrCat(at.where, ": policies.presets.", key, ": ", description));
  };
  std::vector<PolicyPreset> parsed;
  for (const auto& [name, value] : node.entries) {
    if (name.empty()) return refuse(value, "\"\"", "a preset needs a name, by which requests ask for it");
    if (!value.is_mapping) return refuse(value, name, "must be a mapping with at least policy");
    PolicyPreset& preset = parsed.emplace_back(PolicyPreset{.name = name, .where = value.where});
    for (const auto& [key, setting] : value.entries) {
      if (setting.is_mapping) return refuse(setting, absl::StrCat(name, ".", key), "must be a single value");
      preset.settings.push_back({.key = key, .value = setting.scalar, .where = setting.where});
    }
  }
  presets = std::move(parsed);
  return absl::OkStatus();
}

}  // namespace

std::string ConfigKey::range() const { return std::visit(Ranger{}, type); }

std::string ConfigKey::show(const Config& config) const {
  Config copy = config;  // the members are reached through a table of mutable references
  return std::visit(Shower{copy}, type);
}

absl::Status ConfigKey::parse(const ConfigNode& node, Config& config) const {
  const auto refuse = [&](const std::string& description) {
    return absl::InvalidArgumentError(absl::StrCat(node.where, ": ", std::string(name), ": ", description));
  };
  if (std::holds_alternative<PresetsKey>(type)) {
    if (!node.is_mapping && !node.scalar.empty()) return refuse(absl::StrCat("must be ", range()));
    return parse_presets(node, config.policies.presets);
  }
  if (node.is_mapping) return refuse(absl::StrCat("must be ", range(), ", not a mapping"));
  if (!std::visit(Reader{node.scalar, config}, type)) {
    return refuse(absl::StrCat("must be ", range(), ", not \"", node.scalar, "\""));
  }
  return absl::OkStatus();
}

std::span<const ConfigKey> config_keys() { return kKeys; }

const ConfigKey* find_config_key(std::string_view name) {
  const auto found = std::find_if(kKeys.begin(), kKeys.end(), [&](const ConfigKey& key) { return key.name == name; });
  return found == kKeys.end() ? nullptr : &*found;
}

const ConfigKey* nearest_config_key(std::string_view name) {
  const ConfigKey* nearest = nullptr;
  size_t least = kMostTypos + 1;
  for (const ConfigKey& key : kKeys) {
    const size_t distance = edit_distance(name, key.name);
    if (distance < least) {
      nearest = &key;
      least = distance;
    }
  }
  return nearest;
}

}  // namespace pkv
