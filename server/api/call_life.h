// The steps of one call's life, for the log at debug. They are noted where they happen, also on the engine thread, and
// written elsewhere, since writing may block. Ids, numbers and names of the contract; never a word of a text.
#pragma once

#include <string_view>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "server/telemetry/log.h"

namespace pkv {

class CallLife {
 public:
  struct Step {
    std::string_view name;
    absl::Time at;
    std::vector<LogField> fields;
  };

  explicit CallLife(const Log& log) : log_(log) {}

  bool wanted() const { return log_.writes(LogLevel::kDebug); }
  // Nothing where it is not wanted. Under the call's mutex, as take().
  void note(std::string_view name, std::vector<LogField> fields = {});
  std::vector<Step> take() { return std::exchange(steps_, {}); }

 private:
  const Log& log_;
  std::vector<Step> steps_;
};

// One line for each step, with the request's id and the time since it arrived.
void write_life(const Log& log, std::string_view request_id, absl::Time arrived,
                const std::vector<CallLife::Step>& steps);

}  // namespace pkv
