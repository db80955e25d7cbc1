// Tells the log, once for each time, that the engine shows no sign of life, and what it and the preparation threads
// were at: ids, phases and bytes, no text.
#pragma once

#include "absl/time/time.h"
#include "server/api/preparation_list.h"
#include "server/engine/engine.h"
#include "server/telemetry/log.h"

namespace pkv {

class StallWatch {
 public:
  StallWatch(absl::Duration limit, const Log& log) : limit_(limit), log_(log) {}
  // To be called again and again, by one thread.
  void look(const Engine& engine, const PreparationList& preparing);

 private:
  const absl::Duration limit_;
  const Log& log_;
  bool told_ = false;  // of the stall there is
};

}  // namespace pkv
