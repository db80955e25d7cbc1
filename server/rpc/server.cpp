#include "server/rpc/server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/impl/server_builder_option.h>

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/rpc/generation_service.h"
#include "server/rpc/listen_failure.h"
#include "server/rpc/model_service.h"
#include "server/rpc/stats_service.h"

namespace pkv {
namespace {

constexpr int kMaxMessageBytes = 16 << 20;
constexpr int kMaxConcurrentStreams = 1024;  // of one connection
// Clients may ping this often, also without a call under way; ours go out to notice clients that vanished.
constexpr int kMinClientPingMs = 10'000;
constexpr int kServerPingMs = 60'000;
constexpr int kServerPingTimeoutMs = 20'000;
// Connections are renewed, so that clients resolve names again; calls under way get the grace.
constexpr int kMaxConnectionAgeMs = 3'600'000;
constexpr int kMaxConnectionAgeGraceMs = 3'600'000;

// Reflection for this server or not. Some versions of the library register it for the whole process merely by being
// linked, others do not, so both cases are put right here.
class ReflectionOption final : public grpc::ServerBuilderOption {
 public:
  explicit ReflectionOption(bool enabled) : enabled_(enabled) {}
  void UpdateArguments(grpc::ChannelArguments*) override {}
  void UpdatePlugins(std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>* plugins) override {
    auto plugin = std::make_unique<grpc::reflection::ProtoServerReflectionPlugin>();
    std::erase_if(*plugins, [&](const auto& other) { return other->name() == plugin->name(); });
    if (enabled_) plugins->push_back(std::move(plugin));
  }

 private:
  bool enabled_;
};

void set_limits(grpc::ServerBuilder& builder) {
  builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
  builder.SetMaxSendMessageSize(kMaxMessageBytes);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMaxConcurrentStreams);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, kMinClientPingMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kServerPingMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kServerPingTimeoutMs);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_MS, kMaxConnectionAgeMs);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS, kMaxConnectionAgeGraceMs);
  // Two servers on one port would share its connections unnoticed.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
}

}  // namespace

struct RpcServer::Services {
  Services(ServerState& state, HealthChecks checks)
      : generation(state), model(state), stats(state), health(std::move(checks)) {}
  GenerationService generation;
  ModelService model;
  StatsService stats;
  HealthService health;
};

RpcServer::RpcServer() = default;

RpcServer::~RpcServer() {
  if (server_ != nullptr) shutdown(absl::ZeroDuration());
}

absl::StatusOr<std::unique_ptr<RpcServer>> RpcServer::start(const RpcServerOptions& options, ServerState& state) {
  std::unique_ptr<RpcServer> result(new RpcServer());
  result->hearing_time_ = options.hearing_time;
  result->services_ = std::make_unique<Services>(state, options.health);
  grpc::ServerBuilder builder;
  set_limits(builder);
  builder.SetOption(std::make_unique<ReflectionOption>(options.reflection));
  builder.AddListeningPort(options.listen, grpc::InsecureServerCredentials(), &result->port_);
  builder.RegisterService(&result->services_->generation);
  builder.RegisterService(&result->services_->model);
  builder.RegisterService(&result->services_->stats);
  builder.RegisterService(&result->services_->health);
  result->server_ = builder.BuildAndStart();
  if (result->server_ == nullptr || result->port_ == 0) {
    return absl::UnavailableError(
        absl::StrCat("server.listen: ", options.listen, ": ", why_not_listening(options.listen, "server.listen")));
  }
  return result;
}

void RpcServer::refresh_health() { services_->health.refresh(); }

void RpcServer::shutdown(absl::Duration flush_time) {
  // The library cuts off calls that arrive from now on with CANCELLED, which clients do not retry. Those who watch the
  // health were told to go elsewhere; until they have heard it, they are still answered with UNAVAILABLE.
  services_->health.await_unwatched(absl::Now() + hearing_time_);
  services_->health.close();
  services_->stats.close_watches();  // they would go on for ever
  server_->Shutdown(absl::ToChronoTime(absl::Now() + flush_time));
  server_->Wait();
  server_.reset();
}

}  // namespace pkv
