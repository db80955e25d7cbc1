// pyramidkv-server: configuration in, server out. All of the program but main(), so that a test can run it with a
// device of its own.
#pragma once

#include "server/app.h"

namespace pkv {

// Until the end of the server: the exit code, 0, 1 for a failure, or 2 for wrong usage or configuration.
int run_program(int argc, char** argv, const AppOptions& options = {});

}  // namespace pkv
