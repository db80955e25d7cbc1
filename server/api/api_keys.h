// The keys that callers may have. A server knows only their SHA-256 hashes, from a file of lines
//   HASH NAME [scope=generate,stats] [max_requests=N] [priority=N]
// A key is long and random, so that its hash needs no salt and no slow function.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace pkv {

using KeyHash = std::array<uint8_t, 32>;

KeyHash hash_key(std::string_view key);
std::string key_hash_text(const KeyHash& hash);  // lower-case hexadecimal

inline constexpr int32_t kMostPriority = 100;  // of a request, and as much below 0; the lower goes first

struct ApiKey {
  KeyHash hash = {};
  std::string name;  // in logs and errors instead of the key
  bool generate = true;
  bool stats = false;
  int32_t best_priority = 0;  // the lowest that its requests may name
  int32_t max_requests = 0;   // at once, those that wait included; 0: as many as the server takes
};

// INVALID_ARGUMENT with file and line for a line that is none, a hash or name that comes twice, or no key at all.
// `path` is for messages.
absl::StatusOr<std::vector<ApiKey>> parse_api_keys(const std::string& text, const std::string& path);
// Also NOT_FOUND where the file cannot be read.
absl::StatusOr<std::vector<ApiKey>> load_api_keys(const std::string& path);

// The hash of a new key as the file has it. INVALID_ARGUMENT, without repeating it, for a key that could be guessed or
// that a header cannot carry.
absl::StatusOr<std::string> hash_new_key(std::string_view key);

}  // namespace pkv
