// Tells the log, once for each time, that the engine shows no sign of life, and what it and the calls beside it were
// at: ids, phases and bytes, no text.
#pragma once

#include "absl/time/time.h"
#include "server/api/call_registry.h"
#include "server/engine/engine.h"
#include "server/telemetry/log.h"

namespace pkv {

class StallWatch {
 public:
  StallWatch(absl::Duration limit, const Log& log) : limit_(limit), log_(log) {}
  // To be called again and again, by one thread.
  void look(const Engine& engine, const CallRegistry& calls);
  // What they are at, however long the engine has not moved.
  void tell(const Engine& engine, const CallRegistry& calls) const;

 private:
  const absl::Duration limit_;
  const Log& log_;
  bool told_ = false;  // of the stall there is
};

}  // namespace pkv
