#include "server/api/authenticator.h"

#include <openssl/crypto.h>

#include <map>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "server/api/errors.h"

namespace pkv {
namespace {

constexpr absl::Duration kRetryDelay = absl::Seconds(1);

absl::Status unauthenticated(const std::string& description) {
  return make_error({.reason = kUnauthenticated, .description = description});
}

bool may(const ApiKey& key, KeyScope scope) {
  return scope == KeyScope::kAny || (scope == KeyScope::kStats ? key.stats : key.generate);
}

absl::Status out_of_scope(const ApiKey& key, KeyScope scope) {
  const std::string wanted = scope == KeyScope::kStats ? "stats" : "generate";
  return make_error(
      {.reason = kPermissionDenied,
       .description = absl::StrCat("the key \"", key.name, "\" is not for this: its scope lacks ", wanted),
       .metadata = {{"key", key.name}, {"scope", wanted}}});
}

absl::Status over_limit(const ApiKey& key) {
  return make_error({.reason = kKeyLimit,
                     .description = absl::StrCat("the key \"", key.name, "\" has its max_requests under way, ",
                                                 key.max_requests, "; try again later"),
                     .metadata = {{"key", key.name}, {"max", absl::StrCat(key.max_requests)}},
                     .retry_delay = kRetryDelay});
}

}  // namespace

Credentials read_authorization(std::string_view header) {
  if (header.empty()) return {};
  constexpr std::string_view kScheme = "bearer ";
  const bool bearer = absl::EqualsIgnoreCase(std::string(header.substr(0, kScheme.size())), std::string(kScheme));
  if (!bearer || header.size() == kScheme.size()) return {.kind = Credentials::Kind::kUnreadable};
  return {.kind = Credentials::Kind::kKey, .hash = hash_key(header.substr(kScheme.size()))};
}

void KeyUse::release() {
  const std::lock_guard lock(mutex_);
  if (open_ != nullptr) open_->fetch_sub(1);
  open_.reset();
}

void Authenticator::replace(std::vector<ApiKey> keys) {
  std::map<std::string, std::shared_ptr<std::atomic<int32_t>>> open;
  if (const std::shared_ptr<const Entries> before = keys_.get(); before != nullptr) {
    for (const Entry& entry : *before) open[entry.key.name] = entry.open;
  }
  auto entries = std::make_shared<Entries>();
  for (ApiKey& key : keys) {
    std::shared_ptr<std::atomic<int32_t>>& count = open[key.name];
    if (count == nullptr) count = std::make_shared<std::atomic<int32_t>>(0);
    entries->push_back({.key = std::move(key), .open = count});
  }
  keys_.set(entries->empty() ? nullptr : std::move(entries));
}

// Every entry is compared, all of it: how long that takes says nothing about any hash.
const Authenticator::Entry* Authenticator::find(const Entries& entries, const KeyHash& hash) {
  const Entry* found = nullptr;
  for (const Entry& entry : entries) {
    if (CRYPTO_memcmp(entry.key.hash.data(), hash.data(), hash.size()) == 0) found = &entry;
  }
  return found;
}

absl::Status Authenticator::admit(const Credentials& credentials, KeyScope scope, std::shared_ptr<KeyUse>& use) const {
  const std::shared_ptr<const Entries> entries = keys_.get();
  if (entries == nullptr) return absl::OkStatus();
  if (credentials.kind == Credentials::Kind::kNone) {
    return unauthenticated("an API key is needed; send \"authorization: Bearer KEY\"");
  }
  if (credentials.kind == Credentials::Kind::kUnreadable) {
    return unauthenticated("the authorization is not one \"Bearer KEY\"");
  }
  const Entry* entry = find(*entries, credentials.hash);
  if (entry == nullptr) return unauthenticated("the API key is none of this server's");
  use = std::make_shared<KeyUse>(entry->key);
  if (!may(entry->key, scope)) return out_of_scope(entry->key, scope);
  if (scope != KeyScope::kGenerate) return absl::OkStatus();
  const int32_t before = entry->open->fetch_add(1);
  use->open_ = entry->open;
  if (entry->key.max_requests == 0 || before < entry->key.max_requests) return absl::OkStatus();
  use->release();
  return over_limit(entry->key);
}

}  // namespace pkv
