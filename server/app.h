// The whole server as one object, without signals and process ends: main and the integration tests wire it the same
// way.
#pragma once

#include <atomic>
#include <memory>
#include <stop_token>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/api/server_state.h"
#include "server/api/tls_files.h"
#include "server/config/config.h"
#include "server/http/metrics_exporter.h"
#include "server/http/openai_server.h"
#include "server/load_progress.h"
#include "server/loaded_model.h"
#include "server/rpc/server.h"
#include "server/stall_watch.h"
#include "server/telemetry/log.h"

namespace pkv {

struct AppOptions {
  // The engine has work and shows no sign of life for this long: the process is not live. A step of a large model on a
  // small machine takes seconds, not minutes.
  absl::Duration stall_limit = absl::Minutes(2);
  // RpcServerOptions.
  absl::Duration hearing_time = absl::Seconds(1);
  absl::Duration idle_time = absl::Minutes(5);
  BackendMaker make_backend = pkv::make_backend;
};

class App {
 public:
  // Listens, not yet serving: calls that need the model get UNAVAILABLE. `log` must outlive it.
  static absl::StatusOr<std::unique_ptr<App>> start(const Config& config, const Log& log,
                                                    const AppOptions& options = {});
  ~App();

  // Loads the model and begins to serve. May run on a thread of its own, which has to have ended before stop().
  // CANCELLED soon after abandon_load(); what is being loaded at that instant, one large tensor say, is finished first.
  absl::Status load();
  void abandon_load() { abandon_.request_stop(); }
  // Not ready any more, no new work, lets requests go on until `deadline`, cancels the rest and closes. Once. An error:
  // the engine hangs and requests are still there; the process should end without destroying this.
  absl::Status stop(absl::Time deadline);

  // Puts in force what a reload may change of the configuration: all of `next` or, with an error that names place and
  // key, nothing of it. Calls under way go on as they were accepted. One thread at a time.
  absl::Status reload(const Config& next);
  // Tells the log of an engine that has work and does not move. To be called again and again, by one thread.
  void watch_for_stalls();

  // Both say in a sentence what is wrong; thread-safe, and they do not block.
  // May receive traffic: the model is loaded, the server is not draining, the engine has not failed.
  absl::Status ready() const;
  // The process answers, and its engine moves while it has work.
  absl::Status live() const;

  absl::Status engine_failure() const;  // OK, or what its engine came to
  // Running and waiting, as the engine last said; thread-safe, and it does not block.
  uint32_t open_requests() const;
  // ServerState::open_calls(); thread-safe.
  int64_t open_calls() { return state_.open_calls(); }
  int port() const { return rpc_->port(); }
  int http_port() const { return http_ == nullptr ? 0 : http_->port(); }
  int health_port() const { return rpc_->health_port(); }
  int metrics_port() const { return metrics_ == nullptr ? 0 : metrics_->port(); }

 private:
  App(const Config& config, const Log& log, const AppOptions& options, PolicyCatalog policies);
  MetricsSnapshot snapshot();
  void add_digest(const std::stop_token& stop);

  // In the order of making; taken down backwards, the callers' side first.
  Config config_;
  const Log& log_;
  const AppOptions options_;
  std::stop_source abandon_;
  LoadProgress progress_;
  std::atomic<bool> draining_ = false;
  StallWatch stalls_;
  ServerState state_;
  std::shared_ptr<TlsFiles> tls_;  // null: plain text
  std::jthread following_;
  std::unique_ptr<LoadedModel> model_;
  std::jthread digest_;
  std::unique_ptr<RpcServer> rpc_;
  std::unique_ptr<OpenAiServer> http_;
  std::unique_ptr<MetricsExporter> metrics_;
};

}  // namespace pkv
