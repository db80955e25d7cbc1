#include "server/telemetry/version.h"

namespace pkv {

std::string_view version() { return PKV_VERSION; }

}  // namespace pkv
