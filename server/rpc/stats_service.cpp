#include "server/rpc/stats_service.h"

#include <memory>
#include <string>

#include "absl/time/clock.h"
#include "server/api/times.h"
#include "server/engine/device_use.h"
#include "server/engine/engine.h"
#include "server/rpc/answer_now.h"
#include "server/rpc/guard.h"
#include "server/rpc/refused_stream.h"
#include "server/telemetry/version.h"

namespace pkv {
namespace {

namespace pb = ::pyramidkv::v1;

pb::ServerState to_proto(Engine::State state) {
  switch (state) {
    case Engine::State::kServing:
      return pb::SERVER_STATE_SERVING;
    case Engine::State::kDraining:
      return pb::SERVER_STATE_DRAINING;
    case Engine::State::kFailed:
      return pb::SERVER_STATE_FAILED;
    case Engine::State::kStopped:
      return pb::SERVER_STATE_DRAINING;
  }
  return pb::SERVER_STATE_UNSPECIFIED;
}

void set_device(const DeviceUse& use, pb::DeviceMemoryStats& out) {
  out.set_weights_bytes(use.weights);
  out.set_kv_live_bytes(use.kv_live);
  out.set_kv_free_bytes(use.kv_free);
  out.set_workspace_bytes(use.workspace);
  out.set_step_bytes(use.step);
  out.set_other_bytes(use.other);
  out.set_idle_bytes(use.idle);
  out.set_staging_bytes(use.staging);
}

void set_memory(const EngineStats& stats, const ServedModel& served, pb::MemoryStats& out) {
  uint64_t full_equivalent = 0;
  int64_t saved = 0;
  for (const auto& [name, policy] : stats.policies) {
    full_equivalent += policy.full_equivalent_bytes;
    saved += policy.saved_bytes;
  }
  out.set_kv_pool_bytes(stats.pool_bytes);
  out.set_kv_live_bytes(stats.live_bytes);
  out.set_kv_free_bytes(stats.free_bytes);
  out.set_kv_reserved_bytes(stats.reserved_bytes);
  out.set_kv_held_bytes(stats.cache.held);
  out.set_kv_full_equivalent_bytes(full_equivalent);
  out.set_kv_saved_bytes(saved);
  out.set_weights_bytes(served.weight_bytes);
  out.set_workspace_bytes(stats.workspace_bytes);
  out.set_page_bytes(static_cast<uint32_t>(served.engine->options().page_bytes));
  if (stats.device.has_value()) set_device(device_use(stats), *out.mutable_device());
}

void set_scheduler(const EngineStats& stats, const EngineOptions& options, const FrontLimits& limits,
                   pb::SchedulerStats& out) {
  out.set_running(stats.running);
  out.set_waiting(stats.waiting);
  out.set_max_running(static_cast<uint32_t>(options.max_running));
  out.set_max_waiting(static_cast<uint32_t>(limits.max_waiting));
  out.set_waiting_tokens(stats.waiting_tokens);
  out.set_max_waiting_tokens(limits.max_waiting_tokens);
}

void set_policies(const EngineStats& stats, pb::Stats& out) {
  for (const auto& [name, totals] : stats.policies) {
    pb::PolicyStats& policy = *out.add_policies();
    policy.set_policy(name);
    policy.set_running(totals.running);
    policy.set_requests_total(totals.requests_total);
    policy.set_held_bytes(totals.held_bytes);
    policy.set_full_equivalent_bytes(totals.full_equivalent_bytes);
    policy.set_saved_bytes(totals.saved_bytes);
    policy.set_evicted_entries_total(totals.evicted_entries_total + totals.evicted_while_generating_total);
  }
}

void set_totals(const EngineStats& stats, const RequestMetrics::Snapshot& requests, pb::TotalStats& out) {
  for (const auto& [labels, count] : requests.requests) {
    if (count > 0) (*out.mutable_requests_by_code())[labels.second] += count;
  }
  uint64_t rejected = 0;
  for (const auto& [reason, count] : requests.rejected) rejected += count;
  out.set_rejected(rejected);
  uint64_t prompt_tokens = 0, generation_tokens = 0;
  double held = 0, full_equivalent = 0;
  for (const auto& [name, totals] : stats.policies) {
    prompt_tokens += totals.prompt_tokens_total;
    generation_tokens += totals.generation_tokens_total;
    held += totals.held_byte_seconds_total;
    full_equivalent += totals.full_equivalent_byte_seconds_total;
  }
  out.set_prompt_tokens(prompt_tokens);
  out.set_generation_tokens(generation_tokens);
  out.set_kv_held_byte_seconds(held);
  out.set_kv_full_equivalent_byte_seconds(full_equivalent);
}

void set_requests(const EngineStats& stats, pb::Stats& out) {
  for (const EngineStats::RequestRow& row : stats.requests) {
    pb::RequestStats& request = *out.add_requests();
    request.set_request_id(row.id);
    request.set_phase(row.phase);
    request.set_policy(row.policy);
    request.set_prompt_tokens(static_cast<uint32_t>(row.prompt_tokens));
    request.set_generated_tokens(static_cast<uint32_t>(row.generated_tokens));
    request.set_held_bytes(row.held_bytes);
    request.set_full_bytes(row.full_bytes);
    set_duration(row.age, *request.mutable_age());
  }
}

}  // namespace

void set_stats(ServerState& state, bool include_requests, pb::Stats& out) {
  const ServedModel* served = state.model();
  const std::shared_ptr<const EngineStats> latest = served == nullptr ? nullptr : served->engine->stats();
  const EngineStats none;
  const EngineStats& stats = latest == nullptr ? none : *latest;
  const absl::Time now = absl::Now();
  out.set_sequence(stats.sequence);
  set_timestamp(served == nullptr ? now : stats.time, *out.mutable_time());
  set_duration(now - state.started(), *out.mutable_uptime());
  out.set_version(std::string(version()));
  out.set_state(served == nullptr ? pb::SERVER_STATE_LOADING : to_proto(served->engine->state()));
  set_totals(stats, state.metrics().snapshot(), *out.mutable_totals());
  if (served == nullptr) return;
  set_scheduler(stats, served->engine->options(), *state.limits(), *out.mutable_scheduler());
  set_memory(stats, *served, *out.mutable_memory());
  set_policies(stats, out);
  if (include_requests) set_requests(stats, out);
}

grpc::ServerUnaryReactor* StatsService::GetStats(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                                 grpc::ByteBuffer* response) {
  return answer_now<pb::GetStatsRequest>(replies_, *context, guard(state_, *context, "GetStats", KeyScope::kStats),
                                         *request, *response, [this](const pb::GetStatsRequest& message) {
                                           pb::GetStatsResponse reply;
                                           set_stats(state_, message.include_requests(), *reply.mutable_stats());
                                           return reply;
                                         });
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* StatsService::WatchStats(grpc::CallbackServerContext* context,
                                                                     const grpc::ByteBuffer* request) {
  if (const absl::Status status = guard(state_, *context, "WatchStats", KeyScope::kStats); !status.ok()) {
    return refuse_stream(status, *context);
  }
  return watch_.start(*request, *context);
}

}  // namespace pkv
