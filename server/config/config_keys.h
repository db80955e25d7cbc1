// The table of all configuration keys: name, meaning, default and range of each. Parsing a file, variables and
// --set, the list that --help prints and the test of config/server.yaml all use it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>

#include "absl/status/status.h"
#include "server/config/config.h"
#include "server/config/config_node.h"

namespace pkv {

// What a key holds, its range, and the member it sets. One alternative per type of value.
struct IntegerKey {
  int64_t min = 0, max = 0;
  int32_t& (*field)(Config&);
  int64_t multiple_of = 1;
  bool or_zero = false;  // 0 is allowed too, and means that the server chooses
};
struct RealKey {
  double min = 0, max = 0;  // (min, max] where `above_min`, else [min, max]
  bool above_min = false;
  double& (*field)(Config&);
};
struct BytesKey {
  uint64_t min = 0, max = 0;
  uint64_t& (*field)(Config&);
};
struct BooleanKey {
  bool& (*field)(Config&);
};
struct TextKey {
  std::string_view range;                  // for people
  bool (*accepts)(std::string_view text);  // null: any text
  std::string& (*field)(Config&);
};
struct KvDtypeKey {
  KvDtype& (*field)(Config&);
};
struct PresetsKey {};  // policies.presets: a mapping of names to policies

using KeyType = std::variant<IntegerKey, RealKey, BytesKey, BooleanKey, TextKey, KvDtypeKey, PresetsKey>;

struct ConfigKey {
  std::string_view name;           // server.listen
  std::string_view documentation;  // one sentence
  KeyType type;
  bool live = false;  // a reload of the configuration (SIGHUP) puts it in force; else a start does

  std::string range() const;                     // "1 to 4096"
  std::string show(const Config& config) const;  // the value, as a file would have it
  // INVALID_ARGUMENT beginning with the value's place and the key's name.
  absl::Status parse(const ConfigNode& node, Config& config) const;
};

std::span<const ConfigKey> config_keys();
const ConfigKey* find_config_key(std::string_view name);
// The key that a misspelt name most likely means; null where none is near.
const ConfigKey* nearest_config_key(std::string_view name);

}  // namespace pkv
