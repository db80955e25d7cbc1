// Who may call, and how much at once: the keys in force and the places they take. What gRPC and HTTP ask first of every
// call.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "server/api/api_keys.h"
#include "server/telemetry/latest.h"

namespace pkv {

// What a call showed: the hash of its key, never the key.
struct Credentials {
  enum class Kind : uint8_t { kNone, kUnreadable, kKey };
  Kind kind = Kind::kNone;
  KeyHash hash = {};
};
// Of an `authorization` header or metadata entry, "Bearer KEY".
Credentials read_authorization(std::string_view header);

enum class KeyScope : uint8_t {
  kGenerate,  // everything about text
  kStats,     // what the server does for others
  kAny,       // what every key may ask: models and policies
};

// One call's use of a key, and its place among the key's requests. Thread-safe.
class KeyUse {
 public:
  explicit KeyUse(const ApiKey& key) : name_(key.name), best_priority_(key.best_priority) {}
  ~KeyUse() { release(); }
  KeyUse(const KeyUse&) = delete;
  KeyUse& operator=(const KeyUse&) = delete;

  const std::string& name() const { return name_; }
  int32_t best_priority() const { return best_priority_; }
  // Gives the place back, before the caller hears of the call's end: it may call again at once.
  void release();

 private:
  friend class Authenticator;
  const std::string name_;
  const int32_t best_priority_;
  std::shared_ptr<std::atomic<int32_t>> open_;  // the key's requests; null: no place is held
  std::mutex mutex_;                            // guards open_
};

class Authenticator {
 public:
  // Without keys, as at first, everybody may call. Calls under way go on; a key that stays keeps its count.
  void replace(std::vector<ApiKey> keys);
  bool has_keys() const { return keys_.get() != nullptr; }

  // Whether a call may go on. UNAUTHENTICATED, PERMISSION_DENIED, or RESOURCE_EXHAUSTED (KEY_LIMIT) with a delay. `use`
  // is set where the key is known, also for what is refused, and stays null where the server has no keys.
  absl::Status admit(const Credentials& credentials, KeyScope scope, std::shared_ptr<KeyUse>& use) const;

 private:
  struct Entry {
    ApiKey key;
    std::shared_ptr<std::atomic<int32_t>> open;  // requests; the same for a name whatever replaces the keys
  };
  using Entries = std::vector<Entry>;
  static const Entry* find(const Entries& entries, const KeyHash& hash);

  Latest<Entries> keys_;  // null: no keys
};

}  // namespace pkv
