// A server's state with a tiny model and its engine, without transports: what reads requests needs no more.
#pragma once

#include "server/api/server_state.h"

namespace pkv::test {

// Made at the first call, for the life of the process.
ServerState& served_state();

}  // namespace pkv::test
