// The whole server as one object, without signals and process ends: main and the integration tests wire it the same
// way.
#pragma once

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/config/config.h"
#include "server/http/metrics_exporter.h"
#include "server/loaded_model.h"
#include "server/rpc/server.h"
#include "server/rpc/server_state.h"
#include "server/telemetry/log.h"

namespace pkv {

class App {
 public:
  // Listens, not yet serving: calls that need the model get UNAVAILABLE. `log` must outlive it.
  static absl::StatusOr<std::unique_ptr<App>> start(const Config& config, const Log& log);
  ~App();

  // Loads the model and begins to serve.
  absl::Status load();
  // NOT_SERVING, no new work, lets requests go on until `deadline`, cancels the rest and closes. Once.
  void stop(absl::Time deadline);

  bool engine_failed() const;
  int port() const { return rpc_->port(); }
  int metrics_port() const { return metrics_ == nullptr ? 0 : metrics_->port(); }

 private:
  App(const Config& config, const Log& log, PolicyCatalog policies);
  MetricsSnapshot snapshot();
  absl::Status ready() const;

  // In the order of making; taken down backwards, the callers' side first.
  Config config_;
  const Log& log_;
  ServerState state_;
  std::unique_ptr<LoadedModel> model_;
  std::unique_ptr<RpcServer> rpc_;
  std::unique_ptr<MetricsExporter> metrics_;
};

}  // namespace pkv
