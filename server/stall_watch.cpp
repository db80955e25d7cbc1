#include "server/stall_watch.h"

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/time/clock.h"

namespace pkv {
namespace {

constexpr size_t kMaxRows = 256;  // of the log

void dump(const Log& log, const EngineStats& stats) {
  const auto bytes = [](uint64_t value) { return LogValue(value); };
  log.error("what the engine had when it last moved", {{"steps", bytes(stats.steps_total)},
                                                       {"running", bytes(stats.running)},
                                                       {"waiting", bytes(stats.waiting)},
                                                       {"pool_bytes", bytes(stats.pool_bytes)},
                                                       {"live_bytes", bytes(stats.live_bytes)},
                                                       {"reserved_bytes", bytes(stats.reserved_bytes)},
                                                       {"workspace_bytes", bytes(stats.workspace_bytes)}});
  for (size_t i = 0; i < std::min(stats.requests.size(), kMaxRows); ++i) {
    const EngineStats::RequestRow& row = stats.requests[i];
    log.error("stalled request", {{"request_id", row.id},
                                  {"phase", row.phase},
                                  {"policy", row.policy},
                                  {"prompt_tokens", row.prompt_tokens},
                                  {"generated_tokens", row.generated_tokens},
                                  {"held_bytes", row.held_bytes},
                                  {"full_bytes", row.full_bytes},
                                  {"age_seconds", absl::ToDoubleSeconds(row.age)}});
  }
}

// But those that the engine told of: it has not of those that came since it last moved. Callers choose the ids, so that
// calls may share one: of these the engine told of those that came to it first.
void dump(const Log& log, std::vector<CallRegistry::Row> rows, const EngineStats& stats) {
  std::map<std::string_view, size_t> told;  // calls of an id
  for (const EngineStats::RequestRow& row : stats.requests) ++told[row.id];
  std::ranges::stable_sort(rows, {}, &CallRegistry::Row::since);
  std::erase_if(rows, [&told, &stats](const CallRegistry::Row& row) {
    if (row.phase != CallPhase::kEngine || row.since > stats.time) return false;
    const auto found = told.find(row.request_id);
    if (found == told.end()) return false;
    if (--found->second == 0) told.erase(found);
    return true;
  });
  for (size_t i = 0; i < std::min(rows.size(), kMaxRows); ++i) {
    const CallRegistry::Row& row = rows[i];
    log.error("call beside the engine", {{"method", row.method},
                                         {"request_id", row.request_id},
                                         {"peer", row.peer},
                                         {"phase", name_of(row.phase)},
                                         {"bytes", row.bytes},
                                         {"phase_seconds", absl::ToDoubleSeconds(absl::Now() - row.since)}});
  }
}

}  // namespace

void StallWatch::look(const Engine& engine, const CallRegistry& calls) {
  const absl::Duration stalled = engine.stalled_for();
  if (stalled <= limit_) {
    if (told_) log_.warn("the engine moves again");
    told_ = false;
  } else if (!told_) {
    told_ = true;
    log_.error("the engine has work and does not move", {{"stalled_seconds", absl::ToDoubleSeconds(stalled)}});
    tell(engine, calls);
  }
}

void StallWatch::tell(const Engine& engine, const CallRegistry& calls) const {
  const std::shared_ptr<const EngineStats> stats = engine.stats();
  dump(log_, *stats);
  dump(log_, calls.rows(), *stats);
}

}  // namespace pkv
