// What gRPC and protobuf have to say goes where everything else goes: into the server's log, in its format.
#pragma once

#include "server/telemetry/log.h"

namespace pkv {

// From now on and for the whole process. Their handlers are plain functions, so this keeps a copy of `log` for good.
void route_library_logs(const Log& log);

}  // namespace pkv
