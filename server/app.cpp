#include "server/app.h"

#include <random>
#include <string>
#include <utility>

#include "absl/time/clock.h"

namespace pkv {
namespace {

// What calls whose work is done may take to reach their clients.
constexpr absl::Duration kFlushTime = absl::Seconds(5);

uint64_t random_seed() {
  std::random_device device;
  return (uint64_t{device()} << 32) | device();
}

std::string_view state_name(EngineState state) {
  if (state == EngineState::kServing) return "serving";
  return state == EngineState::kFailed ? "failed" : "draining";
}

// "127.0.0.1:0" with the port that was taken.
std::string with_port(const std::string& listen, int port) {
  return listen.substr(0, listen.rfind(':') + 1) + std::to_string(port);
}

}  // namespace

App::App(const Config& config, const Log& log, PolicyCatalog policies)
    : config_(config), log_(log), state_(std::move(policies), log, random_seed()) {}

App::~App() {
  if (rpc_ != nullptr) stop(absl::Now());
}

absl::StatusOr<std::unique_ptr<App>> App::start(const Config& config, const Log& log) {
  absl::StatusOr<PolicyCatalog> policies = PolicyCatalog::create(config.policies, config.cache.dtype);
  if (!policies.ok()) return policies.status();
  std::unique_ptr<App> app(new App(config, log, *std::move(policies)));
  absl::StatusOr<std::unique_ptr<RpcServer>> rpc =
      RpcServer::start({.listen = config.server.listen, .reflection = config.server.reflection}, app->state_);
  if (!rpc.ok()) return rpc.status();
  app->rpc_ = *std::move(rpc);
  if (!config.metrics.listen.empty()) {
    absl::StatusOr<std::unique_ptr<MetricsExporter>> metrics =
        MetricsExporter::start(config.metrics.listen, {.snapshot = [self = app.get()] { return self->snapshot(); },
                                                       .live = [] { return absl::OkStatus(); },
                                                       .ready = [self = app.get()] { return self->ready(); }});
    if (!metrics.ok()) return metrics.status();
    app->metrics_ = *std::move(metrics);
  }
  log.info("listening, loading the model",
           {{"address", with_port(config.server.listen, app->port())}, {"model", config.model.path}});
  return app;
}

absl::Status App::load() {
  const absl::Time begin = absl::Now();
  absl::StatusOr<std::unique_ptr<LoadedModel>> loaded = LoadedModel::load(config_);
  if (!loaded.ok()) return loaded.status();
  model_ = *std::move(loaded);
  const ServedModel& served = model_->served();
  state_.publish(&served);
  rpc_->set_serving(true);
  log_.info("ready", {{"address", with_port(config_.server.listen, port())},
                      {"model", served.id},
                      {"device", served.device},
                      {"load_seconds", std::to_string(absl::ToDoubleSeconds(absl::Now() - begin))},
                      {"metrics",
                       metrics_ == nullptr ? "off" : with_port(config_.metrics.listen, metrics_port()) + "/metrics"}});
  return absl::OkStatus();
}

void App::stop(absl::Time deadline) {
  rpc_->set_serving(false);
  if (model_ != nullptr) model_->engine().drain(deadline);
  rpc_->shutdown(absl::Now() + kFlushTime);
  rpc_.reset();
  metrics_.reset();
}

bool App::engine_failed() const { return model_ != nullptr && model_->engine().state() == EngineState::kFailed; }

absl::Status App::ready() const {
  const ServedModel* served = state_.model();
  if (served == nullptr) return absl::UnavailableError("the model is being loaded");
  const EngineState state = served->engine->state();
  if (state == EngineState::kServing) return absl::OkStatus();
  return absl::UnavailableError(state == EngineState::kFailed ? "the engine failed" : "the server is shutting down");
}

MetricsSnapshot App::snapshot() {
  MetricsSnapshot snapshot{.layers = config_.metrics.layers, .requests = state_.metrics().snapshot()};
  const ServedModel* served = state_.model();
  if (served == nullptr) return snapshot;
  snapshot.loaded = true;
  snapshot.state = state_name(served->engine->state());
  snapshot.model = served->id;
  snapshot.architecture = served->shape.architecture;
  snapshot.weights = served->shape.weights;
  snapshot.device = std::string(model_->backend().name());
  snapshot.weight_bytes = served->weight_bytes;
  snapshot.engine = served->engine->stats();
  return snapshot;
}

}  // namespace pkv
