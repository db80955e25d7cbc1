#include "server/api/call_life.h"

#include "absl/time/clock.h"

namespace pkv {

void CallLife::note(std::string_view name, std::vector<LogField> fields) {
  if (wanted()) steps_.push_back({.name = name, .at = absl::Now(), .fields = std::move(fields)});
}

void write_life(const Log& log, std::string_view request_id, absl::Time arrived,
                const std::vector<CallLife::Step>& steps) {
  for (const CallLife::Step& step : steps) {
    std::vector<LogField> fields = {
        {"request_id", request_id}, {"step", step.name}, {"seconds", absl::ToDoubleSeconds(step.at - arrived)}};
    fields.insert(fields.end(), step.fields.begin(), step.fields.end());
    log.write(LogLevel::kDebug, "request", fields);
  }
}

}  // namespace pkv
