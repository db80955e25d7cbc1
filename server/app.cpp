#include "server/app.h"

#include <sys/resource.h>

#include <chrono>
#include <optional>
#include <random>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "kernels/plugin_loader.h"
#include "kernels/status_macros.h"
#include "server/api/repeat_every.h"
#include "server/lane_tables.h"
#include "server/live_settings.h"
#include "server/reload.h"
#include "server/startup_warnings.h"
#include "server/tls_check.h"

namespace pkv {
namespace {

// What calls whose work is done may take to reach their clients.
constexpr absl::Duration kFlushTime = absl::Seconds(5);
// How often the files of server.tls are looked at.
constexpr std::chrono::seconds kTlsInterval(1);

uint64_t random_seed() {
  std::random_device device;
  return (uint64_t{device()} << 32) | device();
}

// "127.0.0.1:0" with the port that was taken.
std::string with_port(const std::string& listen, int port) {
  return listen.substr(0, listen.rfind(':') + 1) + std::to_string(port);
}

FrontLimits limits_of(const Config& config) {
  return {.preparation_threads = config.server.preparation_threads,
          .max_waiting = static_cast<size_t>(config.scheduler.max_waiting),
          .max_waiting_bytes = config.server.max_waiting_bytes,
          .max_waiting_tokens = static_cast<uint64_t>(config.scheduler.max_waiting_tokens),
          .max_text_bytes = config.server.max_text_bytes,
          .max_reply_bytes = config.server.max_message_bytes,
          .max_unread_bytes = config.server.max_unread_bytes,
          .max_unread_seconds = config.server.max_unread_seconds,
          .max_watchers = static_cast<size_t>(config.server.max_watchers)};
}

// Of the calling thread alone, as Linux has it: whatever else wants to run goes first.
void lower_priority() {
  constexpr int kLeast = 19;
  setpriority(PRIO_PROCESS, 0, kLeast);
}

}  // namespace

App::App(const Config& config, const Log& log, const AppOptions& options, PolicyCatalog policies)
    : config_(config),
      log_(log),
      options_(options),
      progress_(log),
      stalls_(options.stall_limit, log),
      state_(std::move(policies), log, random_seed(), limits_of(config)) {}

App::~App() {
  if (rpc_ != nullptr) stop(absl::Now()).IgnoreError();
}

absl::StatusOr<std::unique_ptr<App>> App::start(const Config& config, const Log& log, const AppOptions& options) {
  PKV_ASSIGN_OR_RETURN(std::optional<TlsPem> tls, configured_tls(config));
  PKV_ASSIGN_OR_RETURN(std::shared_ptr<const LaneTable> lane_table, configured_lane_table(config));
  PKV_ASSIGN_OR_RETURN(LiveSettings settings, make_live_settings(config, std::move(lane_table)));
  std::unique_ptr<App> app(new App(config, log, options, std::move(settings.policies)));
  app->state_.authenticator().replace(std::move(settings.keys));
  if (tls) {
    app->tls_ = std::make_shared<TlsFiles>(config.server.tls, *std::move(tls), log);
    app->following_ = std::jthread([files = app->tls_](const std::stop_token& stop) {
      repeat_every(kTlsInterval, stop, [&files] { files->look(); });
    });
  }
  PKV_ASSIGN_OR_RETURN(app->rpc_, RpcServer::start({.config = config.server,
                                                    .tls = app->tls_,
                                                    .health = {.ready = [self = app.get()] { return self->ready(); },
                                                               .live = [self = app.get()] { return self->live(); }},
                                                    .hearing_time = options.hearing_time,
                                                    .idle_time = options.idle_time},
                                                   app->state_));
  const Probes probes{.live = [self = app.get()] { return self->live(); },
                      .ready = [self = app.get()] { return self->ready(); }};
  if (!config.http.listen.empty()) {
    PKV_ASSIGN_OR_RETURN(app->http_, OpenAiServer::start(config.http, app->tls_, app->state_, probes));
  }
  if (!config.metrics.listen.empty()) {
    PKV_ASSIGN_OR_RETURN(
        app->metrics_,
        MetricsExporter::start(config.metrics.listen,
                               {.snapshot = [self = app.get()] { return self->snapshot(); }, .probes = probes}));
  }
  for (const std::string& warning : startup_warnings(config, memory_limit())) log.warn(warning);
  log.info("listening, loading the model",
           {{"address", with_port(config.server.listen, app->port())}, {"model", config.model.path}});
  return app;
}

absl::Status App::load() {
  const absl::Time begin = absl::Now();
  Config config = config_;
  if (config.runtime.device == "auto") {
    const DeviceChoice choice = choose_device();
    config.runtime.device = choice.device;
    log_.info("runtime.device is auto", {{"device", choice.device}, {"why", choice.why}});
  }
  PKV_ASSIGN_OR_RETURN(
      model_, LoadedModel::load(config, state_.policies()->lane_table().get(), options_.make_backend,
                                {.stop = abandon_.get_token(),
                                 .progress = [this](uint64_t done, uint64_t all) { progress_.tell(done, all); }}));
  const ServedModel& served = model_->served();
  if (!served.chat_template->status().ok()) log_.warn(std::string(served.chat_template->status().message()));
  state_.publish(&served);
  rpc_->refresh_health();
  log_.info("ready", {{"address", with_port(config_.server.listen, port())},
                      {"model", served.id},
                      {"device", served.device},
                      {"load_seconds", absl::ToDoubleSeconds(absl::Now() - begin)},
                      {"http", http_ == nullptr ? "off" : with_port(config_.http.listen, http_port())},
                      {"metrics",
                       metrics_ == nullptr ? "off" : with_port(config_.metrics.listen, metrics_port()) + "/metrics"}});
  // Only now: reading the whole file would compete with loading it.
  digest_ = std::jthread([this](const std::stop_token& stop) { add_digest(stop); });
  return absl::OkStatus();
}

void App::add_digest(const std::stop_token& stop) {
  lower_priority();
  absl::StatusOr<std::string> digest = file_sha256(config_.model.path, stop);
  if (digest.ok()) {
    model_->served().sha256->set(*std::move(digest));
  } else if (!absl::IsCancelled(digest.status())) {
    log_.warn("the model file has no SHA-256", {{"error", std::string(digest.status().message())}});
  }
}

absl::Status App::reload(const Config& next) {
  PKV_RETURN_IF_ERROR(check_reload(config_, next));
  PKV_ASSIGN_OR_RETURN(LiveSettings settings, make_live_settings(next, state_.policies()->lane_table()));
  // One after another: none of them refers to another, and a call reads each at a step of its own, so that one which
  // came just before meets some old and some new ones however they are replaced.
  state_.set_policies(std::move(settings.policies));
  state_.set_limits(limits_of(next));
  state_.authenticator().replace(std::move(settings.keys));
  log_.set_level(next.log.level);
  return absl::OkStatus();
}

absl::Status App::stop(absl::Time deadline) {
  draining_ = true;
  if (model_ != nullptr) model_->engine().close();
  rpc_->refresh_health();  // only now: who hears that it should go elsewhere is not served any more
  if (model_ != nullptr && !model_->engine().drain(deadline)) {
    stalls_.tell(model_->engine(), state_.calls());
    return absl::DeadlineExceededError("the engine hangs: requests could not be cancelled");
  }
  rpc_->shutdown(kFlushTime);
  if (http_ != nullptr) http_->await_answers(kFlushTime);
  http_.reset();
  state_.end_work();
  metrics_.reset();
  rpc_.reset();  // last: a scrape asks it for its connections
  return absl::OkStatus();
}

absl::Status App::ready() const {
  if (draining_) return absl::UnavailableError("the server is draining");
  const ServedModel* served = state_.model();
  if (served == nullptr) return absl::UnavailableError(progress_.text());
  const Engine::State state = served->engine->state();
  if (state == Engine::State::kServing) return absl::OkStatus();
  return absl::UnavailableError(state == Engine::State::kFailed ? "the engine has failed" : "the server is draining");
}

absl::Status App::live() const {
  const ServedModel* served = state_.model();
  const absl::Duration stalled = served == nullptr ? absl::ZeroDuration() : served->engine->stalled_for();
  if (stalled <= options_.stall_limit) return absl::OkStatus();
  return absl::UnavailableError(
      absl::StrCat("the engine has work and has not moved for ", absl::ToInt64Seconds(stalled), " s"));
}

void App::watch_for_stalls() {
  if (const ServedModel* served = state_.model(); served != nullptr) stalls_.look(*served->engine, state_.calls());
}

absl::Status App::engine_failure() const {
  const ServedModel* served = state_.model();
  return served == nullptr ? absl::OkStatus() : served->engine->failure();
}

uint32_t App::open_requests() const {
  const ServedModel* served = state_.model();
  if (served == nullptr) return 0;
  const std::shared_ptr<const EngineStats> stats = served->engine->stats();
  return stats->running + stats->waiting;
}

MetricsSnapshot App::snapshot() {
  const ConnectionCounts connections = rpc_->connections();
  MetricsSnapshot snapshot{.layers = config_.metrics.layers,
                           .open_calls = static_cast<uint64_t>(open_calls()),
                           .connections = connections.open,
                           .connections_refused = connections.refused_total,
                           .requests = state_.metrics().snapshot()};
  for (const CallPhase phase : kCallPhases) snapshot.calls[static_cast<size_t>(phase)] = state_.calls().count(phase);
  const ServedModel* served = state_.model();
  if (served == nullptr) return snapshot;
  snapshot.state = served->engine->state();
  snapshot.model = served->id;
  snapshot.architecture = served->shape.architecture;
  snapshot.weights = served->shape.weights;
  snapshot.device = std::string(model_->backend().name());
  snapshot.weight_bytes = served->weight_bytes;
  snapshot.engine = served->engine->stats();
  return snapshot;
}

}  // namespace pkv
