// The gRPC side of the process: binds the address, offers the services, health and (optionally) reflection, and closes
// without leaving a call unfinished.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/api/server_state.h"
#include "server/api/tls_files.h"
#include "server/config/config.h"
#include "server/rpc/connection_counts.h"
#include "server/rpc/health_service.h"

namespace pkv {

struct RpcServerOptions {
  ServerConfig config;
  std::shared_ptr<const TlsFiles> tls;  // null: plain text
  HealthChecks health;
  // How long those who watch the health are given to hear that it is over, and to leave.
  absl::Duration hearing_time = absl::Seconds(1);
  // Connections without a call for so long are closed: gRPC's clients open theirs again when they need them.
  absl::Duration idle_time = absl::Minutes(5);
};

class RpcServer {
 public:
  // Listens at once. UNAVAILABLE where an address cannot be had, with the reason. `state` must outlive it.
  static absl::StatusOr<std::unique_ptr<RpcServer>> start(const RpcServerOptions& options, ServerState& state);
  ~RpcServer();

  int port() const;
  int health_port() const;  // 0: health has none of its own
  // Of the services' port. Thread-safe.
  ConnectionCounts connections() const;
  // Whoever watches the health is told now what has become of it.
  void refresh_health();
  // Gives those who watch the health `hearing_time` to leave. Then no new calls; waits `flush_time` for
  // those under way, cancels the rest and waits for their ends.
  void shutdown(absl::Duration flush_time);

 private:
  RpcServer();
  struct Services;
  std::unique_ptr<Services> services_;
  struct Port;
  std::unique_ptr<Port> main_;
  std::unique_ptr<Port> health_;  // null: no address of its own
  absl::Duration hearing_time_;
};

}  // namespace pkv
