// The life of the server's process after its start: the model loads, signals come, the engine may fail, and in the end
// everything is taken down in order.
#pragma once

#include <signal.h>

#include <initializer_list>

#include "server/app.h"
#include "server/config/config.h"
#include "server/telemetry/log.h"

namespace pkv {

// What the process ends with beside 0.
inline constexpr int kFailure = 1;
inline constexpr int kWrongUsage = 2;

sigset_t set_of(std::initializer_list<int> signals);

// Loads the model on a thread of its own and serves until SIGTERM or SIGINT, or until the load or the engine has
// failed; then drains and stops. SIGHUP reads `sources` again and puts in force what may change (App::reload()).
// The exit code: 0 where that was asked for and nothing failed. Ends the process itself where the rest cannot be taken
// down. SIGTERM, SIGINT and SIGHUP are blocked in every thread: this one takes them.
int live(App& app, const Config& config, const ConfigSources& sources, const Log& log);

}  // namespace pkv
