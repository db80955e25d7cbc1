#include "server/api/api_keys.h"

#include <openssl/sha.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "kernels/status_macros.h"

namespace pkv {
namespace {

constexpr size_t kMaxFileBytes = 1 << 20;
constexpr size_t kMaxKeys = 1024;  // every call is compared with all of them
constexpr size_t kMaxNameBytes = 64;
constexpr size_t kMinKeyBytes = 20, kMaxKeyBytes = 512;
constexpr int32_t kMostRequests = 1 << 20;

// Never repeats a line: it may be a key by mistake.
absl::Status refuse(const std::string& where, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat(where, ": ", what));
}

bool is_name(std::string_view text) {
  return !text.empty() && text.size() <= kMaxNameBytes && std::ranges::all_of(text, [](unsigned char c) {
    return absl::ascii_isalnum(c) || c == '.' || c == '_' || c == '-';
  });
}

bool read_hash(const std::string& text, KeyHash& hash) {
  if (text.size() != 2 * hash.size() || !std::ranges::all_of(text, absl::ascii_isxdigit)) return false;
  const std::string bytes = absl::HexStringToBytes(text);
  std::ranges::copy(bytes, hash.begin());
  return true;
}

bool read_scope(const std::string& text, ApiKey& key) {
  key.generate = key.stats = false;
  for (const std::string& word : std::vector<std::string>(absl::StrSplit(text, ','))) {
    if (word != "generate" && word != "stats") return false;
    (word == "stats" ? key.stats : key.generate) = true;
  }
  return true;
}

absl::Status read_setting(const std::string& word, const std::string& where, ApiKey& key) {
  const size_t equals = std::min(word.find('='), word.size());
  const std::string name = word.substr(0, equals), value = word.substr(std::min(equals + 1, word.size()));
  if (name == "scope") {
    if (read_scope(value, key)) return absl::OkStatus();
    return refuse(where, "scope: must be generate, stats or generate,stats");
  }
  if (name == "max_requests") {
    if (absl::SimpleAtoi(value, &key.max_requests) && key.max_requests >= 1 && key.max_requests <= kMostRequests) {
      return absl::OkStatus();
    }
    return refuse(where, absl::StrCat("max_requests: must be a whole number from 1 to ", kMostRequests));
  }
  if (name == "priority") {
    if (absl::SimpleAtoi(value, &key.best_priority) && std::abs(int64_t{key.best_priority}) <= kMostPriority) {
      return absl::OkStatus();
    }
    return refuse(where, absl::StrCat("priority: must be a whole number from ", -kMostPriority, " to ", kMostPriority));
  }
  return refuse(where, "what follows hash and name must be scope=..., max_requests=N or priority=N");
}

absl::StatusOr<ApiKey> read_line(const std::vector<std::string>& words, const std::string& where) {
  ApiKey key;
  if (!read_hash(words[0], key.hash)) {
    return refuse(where, "must begin with the key's hash, 64 hexadecimal digits (pyramidkv-server --hash-key)");
  }
  if (words.size() < 2 || !is_name(words[1])) {
    return refuse(where, absl::StrCat("the hash must be followed by the key's name: letters, digits, '.', '_', '-', at "
                                      "most ",
                                      kMaxNameBytes));
  }
  key.name = words[1];
  std::set<std::string> given;
  for (size_t i = 2; i < words.size(); ++i) {
    if (!given.insert(words[i].substr(0, words[i].find('='))).second) return refuse(where, "a setting is given twice");
    PKV_RETURN_IF_ERROR(read_setting(words[i], where, key));
  }
  return key;
}

}  // namespace

KeyHash hash_key(std::string_view key) {
  KeyHash hash;
  SHA256(reinterpret_cast<const unsigned char*>(key.data()), key.size(), hash.data());
  return hash;
}

std::string key_hash_text(const KeyHash& hash) {
  return absl::BytesToHexString({reinterpret_cast<const char*>(hash.data()), hash.size()});
}

absl::StatusOr<std::vector<ApiKey>> parse_api_keys(const std::string& text, const std::string& path) {
  std::vector<ApiKey> keys;
  std::set<KeyHash> hashes;
  std::set<std::string> names;
  size_t number = 0;
  for (const std::string& line : std::vector<std::string>(absl::StrSplit(text, '\n'))) {
    const std::string where = absl::StrCat(path, ":", ++number);
    const std::vector<std::string> words = absl::StrSplit(line, absl::ByAnyChar(" \t\r"), absl::SkipEmpty());
    if (words.empty() || words[0].starts_with('#')) continue;
    PKV_ASSIGN_OR_RETURN(ApiKey key, read_line(words, where));
    if (!hashes.insert(key.hash).second) return refuse(where, absl::StrCat(key.name, ": its hash was there before"));
    if (!names.insert(key.name).second) return refuse(where, absl::StrCat(key.name, ": the name was there before"));
    if (keys.size() == kMaxKeys) return refuse(where, absl::StrCat("there may be ", kMaxKeys, " keys"));
    keys.push_back(std::move(key));
  }
  if (keys.empty()) return refuse(path, "holds no key; nobody could call the server");
  return keys;
}

absl::StatusOr<std::vector<ApiKey>> load_api_keys(const std::string& path) {
  std::error_code error;
  std::ifstream file(path, std::ios::binary);
  if (std::filesystem::is_directory(path, error) || !file) {
    return absl::NotFoundError(absl::StrCat(path, ": cannot be read"));
  }
  std::string text(kMaxFileBytes + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  if (text.size() > kMaxFileBytes) return refuse(path, absl::StrCat("has more than ", kMaxFileBytes, " bytes"));
  return parse_api_keys(text, path);
}

absl::StatusOr<std::string> hash_new_key(std::string_view key) {
  const auto refusal = [](const std::string& what) {
    return absl::InvalidArgumentError(absl::StrCat("the key ", what, "; a good one: openssl rand -hex 32"));
  };
  if (key.size() < kMinKeyBytes) return refusal(absl::StrCat("has fewer than ", kMinKeyBytes, " characters"));
  if (key.size() > kMaxKeyBytes) return refusal(absl::StrCat("has more than ", kMaxKeyBytes, " characters"));
  if (!std::ranges::all_of(key, absl::ascii_isgraph)) {
    return refusal("may have letters, digits and punctuation of ASCII only, no spaces");
  }
  return key_hash_text(hash_key(key));
}

}  // namespace pkv
