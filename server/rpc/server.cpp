#include "server/rpc/server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/impl/server_builder_option.h>

#include <initializer_list>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "kernels/status_macros.h"
#include "server/rpc/connection_listener.h"
#include "server/rpc/credentials.h"
#include "server/rpc/generation_service.h"
#include "server/rpc/model_service.h"
#include "server/rpc/reply_watch.h"
#include "server/rpc/stats_service.h"

namespace pkv {
namespace {

// Clients may ping this often, also without a call under way; ours go out to notice clients that vanished.
constexpr int kMinClientPingMs = 10'000;
constexpr int kServerPingMs = 60'000;
constexpr int kServerPingTimeoutMs = 20'000;
// Connections are renewed, so that clients resolve names again; calls under way get the grace.
constexpr int kMaxConnectionAgeMs = 3'600'000;
constexpr int kMaxConnectionAgeGraceMs = 3'600'000;
// What asks for a description of the services at once, as gRPC answers that: each holds a thread.
constexpr int kMaxReflectionThreads = 16;

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

void set_limits(const RpcServerOptions& options, const grpc::ResourceQuota& quota, grpc::ServerBuilder& builder) {
  const ServerConfig& config = options.config;
  builder.SetMaxReceiveMessageSize(static_cast<int>(config.max_message_bytes));
  builder.SetMaxSendMessageSize(static_cast<int>(config.max_message_bytes));
  builder.SetResourceQuota(quota);
  builder.SetSyncServerOption(grpc::ServerBuilder::NUM_CQS, 1);  // each, by default one a core, takes a thread of them
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, config.max_streams);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, kMinClientPingMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kServerPingMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kServerPingTimeoutMs);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_IDLE_MS,
                             static_cast<int>(absl::ToInt64Milliseconds(options.idle_time)));
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_MS, kMaxConnectionAgeMs);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS, kMaxConnectionAgeGraceMs);
}

}  // namespace

struct RpcServer::Services {
  Services(ServerState& state, const RpcServerOptions& options)
      : replies(std::make_shared<ReplyWatch>(state)),
        generation(state, replies),
        model(state, replies),
        stats(state, replies),
        health(options.health) {
    if (!options.config.health_listen.empty()) plain_health.emplace(options.health);
  }
  const std::shared_ptr<ReplyWatch> replies;
  GenerationService generation;
  ModelService model;
  StatsService stats;
  HealthService health;
  std::optional<HealthService> plain_health;  // at an address of its own
};

// A server of gRPC's and who takes its connections.
struct RpcServer::Port {
  // `listen` is the value of the setting `key`. UNAVAILABLE where it cannot be had.
  static absl::StatusOr<std::unique_ptr<Port>> start(const std::string& key, const std::string& listen,
                                                     int32_t max_connections, grpc::ServerBuilder& builder,
                                                     const std::shared_ptr<grpc::ServerCredentials>& credentials) {
    auto port = std::make_unique<Port>();
    PKV_ASSIGN_OR_RETURN(port->listener, ConnectionListener::open(key, listen, static_cast<size_t>(max_connections)));
    auto acceptor = builder.experimental().AddExternalConnectionAcceptor(
        grpc::ServerBuilder::experimental_type::ExternalConnectionType::FROM_FD, credentials);
    port->server = builder.BuildAndStart();
    if (port->server == nullptr) return absl::UnavailableError(absl::StrCat(key, ": gRPC could not be started"));
    port->listener->start(std::move(acceptor));
    return port;
  }
  // Once; what it counted stays.
  void shutdown(absl::Duration flush_time) {
    if (server == nullptr) return;
    listener->stop();
    server->Shutdown(absl::ToChronoTime(absl::Now() + flush_time));
    server->Wait();
    server.reset();
  }

  std::unique_ptr<grpc::Server> server;
  std::unique_ptr<ConnectionListener> listener;  // ends first: it hands on to the server
};

RpcServer::RpcServer() = default;

RpcServer::~RpcServer() { shutdown(absl::ZeroDuration()); }

int RpcServer::port() const { return main_->listener->port(); }
int RpcServer::health_port() const { return health_ == nullptr ? 0 : health_->listener->port(); }
ConnectionCounts RpcServer::connections() const { return main_->listener->counts(); }

absl::StatusOr<std::unique_ptr<RpcServer>> RpcServer::start(const RpcServerOptions& options, ServerState& state) {
  std::unique_ptr<RpcServer> result(new RpcServer());
  result->hearing_time_ = options.hearing_time;
  Services& services = *(result->services_ = std::make_unique<Services>(state, options));
  const ServerConfig& config = options.config;
  grpc::ResourceQuota quota("pyramidkv");  // one, however many ports
  quota.Resize(config.max_buffer_bytes).SetMaxThreads(kMaxReflectionThreads);
  grpc::ServerBuilder builder;
  set_limits(options, quota, builder);
  builder.SetOption(std::make_unique<ReflectionOption>(config.reflection));
  for (grpc::Service* service : std::initializer_list<grpc::Service*>{&services.generation, &services.model,
                                                                      &services.stats, &services.health}) {
    builder.RegisterService(service);
  }
  PKV_ASSIGN_OR_RETURN(result->main_, Port::start("server.listen", config.listen, config.max_connections, builder,
                                                  server_credentials(options.tls)));
  if (config.health_listen.empty()) return result;
  grpc::ServerBuilder health;
  set_limits(options, quota, health);
  health.SetOption(std::make_unique<ReflectionOption>(false));
  health.RegisterService(&*services.plain_health);
  PKV_ASSIGN_OR_RETURN(result->health_, Port::start("server.health_listen", config.health_listen,
                                                    config.max_connections, health, grpc::InsecureServerCredentials()));
  return result;
}

void RpcServer::refresh_health() {
  services_->health.refresh();
  if (services_->plain_health) services_->plain_health->refresh();
}

void RpcServer::shutdown(absl::Duration flush_time) {
  if (main_ == nullptr || main_->server == nullptr) return;
  // The library cuts off calls that arrive from now on with CANCELLED, which clients do not retry. Those who watch the
  // health were told to go elsewhere; until they have heard it, they are still answered with UNAVAILABLE.
  const absl::Time heard = absl::Now() + hearing_time_;
  services_->health.await_unwatched(heard);
  if (services_->plain_health) services_->plain_health->await_unwatched(heard);
  services_->health.close();
  if (services_->plain_health) services_->plain_health->close();
  services_->stats.close_watches();  // they would go on for ever
  main_->shutdown(flush_time);
  if (health_ != nullptr) health_->shutdown(flush_time);
}

}  // namespace pkv
