#include "server/reload.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "server/config/config_keys.h"

namespace pkv {

absl::Status check_reload(const Config& running, const Config& next) {
  for (const ConfigKey& key : config_keys()) {
    if (key.live || key.show(running) == key.show(next)) continue;
    return absl::InvalidArgumentError(
        next.about(key.name, absl::StrCat("cannot change while the server runs, from ", key.show(running), " to ",
                                          key.show(next), "; restart it")));
  }
  return absl::OkStatus();
}

}  // namespace pkv
