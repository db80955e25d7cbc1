// grpc.health.v1.Health. Every check asks the server itself, so that its answers and those of the HTTP probes agree.
// "" and the services of the contract: may receive traffic; "live": the process answers and its engine moves.
#pragma once

#include <grpcpp/impl/service_type.h>

#include <functional>
#include <memory>
#include <thread>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace pkv {

// Both are called from any thread, often, and must not block.
struct HealthChecks {
  std::function<absl::Status()> ready;
  std::function<absl::Status()> live;
};

class HealthService final : public grpc::Service {
 public:
  explicit HealthService(HealthChecks checks);
  ~HealthService() override;

  // Tells the watchers at once what has changed; otherwise they hear of it within kRefreshInterval.
  void refresh();
  // Returns when nobody watches, at `deadline` at the latest.
  void await_unwatched(absl::Time deadline);
  // Ends every watch and refuses new ones, so that the server can shut down.
  void close();

 private:
  class Watches;
  const std::shared_ptr<Watches> watches_;
  std::jthread monitor_;
};

}  // namespace pkv
