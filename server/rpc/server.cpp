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
#include "server/rpc/credentials.h"
#include "server/rpc/generation_service.h"
#include "server/rpc/listen_failure.h"
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

void set_limits(const ServerConfig& config, grpc::ServerBuilder& builder) {
  builder.SetMaxReceiveMessageSize(static_cast<int>(config.max_message_bytes));
  builder.SetMaxSendMessageSize(static_cast<int>(config.max_message_bytes));
  builder.SetResourceQuota(grpc::ResourceQuota("pyramidkv").Resize(config.max_buffer_bytes));
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, config.max_streams);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, kMinClientPingMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kServerPingMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kServerPingTimeoutMs);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_MS, kMaxConnectionAgeMs);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS, kMaxConnectionAgeGraceMs);
  // Two servers on one port would share its connections unnoticed.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
}

absl::Status not_listening(const std::string& key, const std::string& listen) {
  return absl::UnavailableError(absl::StrCat(key, ": ", listen, ": ", why_not_listening(listen, key)));
}

}  // namespace

struct RpcServer::Services {
  Services(ServerState& state, const RpcServerOptions& options)
      : replies(std::make_shared<ReplyWatch>(absl::Seconds(options.config.max_unread_seconds), state.metrics())),
        generation(state, replies),
        model(state, replies),
        stats(state, replies, static_cast<size_t>(options.config.max_watchers)),
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

RpcServer::RpcServer() = default;

RpcServer::~RpcServer() {
  if (server_ != nullptr) shutdown(absl::ZeroDuration());
}

absl::StatusOr<std::unique_ptr<RpcServer>> RpcServer::start(const RpcServerOptions& options, ServerState& state) {
  std::unique_ptr<RpcServer> result(new RpcServer());
  result->hearing_time_ = options.hearing_time;
  Services& services = *(result->services_ = std::make_unique<Services>(state, options));
  const ServerConfig& config = options.config;
  grpc::ServerBuilder builder;
  set_limits(config, builder);
  builder.SetOption(std::make_unique<ReflectionOption>(config.reflection));
  builder.AddListeningPort(config.listen, server_credentials(config.tls), &result->port_);
  for (grpc::Service* service : std::initializer_list<grpc::Service*>{&services.generation, &services.model,
                                                                      &services.stats, &services.health}) {
    builder.RegisterService(service);
  }
  result->server_ = builder.BuildAndStart();
  if (result->server_ == nullptr || result->port_ == 0) return not_listening("server.listen", config.listen);
  if (config.health_listen.empty()) return result;
  grpc::ServerBuilder health;
  set_limits(config, health);
  health.SetOption(std::make_unique<ReflectionOption>(false));
  health.AddListeningPort(config.health_listen, grpc::InsecureServerCredentials(), &result->health_port_);
  health.RegisterService(&*services.plain_health);
  result->health_server_ = health.BuildAndStart();
  if (result->health_server_ == nullptr || result->health_port_ == 0) {
    return not_listening("server.health_listen", config.health_listen);
  }
  return result;
}

void RpcServer::refresh_health() {
  services_->health.refresh();
  if (services_->plain_health) services_->plain_health->refresh();
}

void RpcServer::shutdown(absl::Duration flush_time) {
  // The library cuts off calls that arrive from now on with CANCELLED, which clients do not retry. Those who watch the
  // health were told to go elsewhere; until they have heard it, they are still answered with UNAVAILABLE.
  const absl::Time heard = absl::Now() + hearing_time_;
  services_->health.await_unwatched(heard);
  if (services_->plain_health) services_->plain_health->await_unwatched(heard);
  services_->health.close();
  if (services_->plain_health) services_->plain_health->close();
  services_->stats.close_watches();  // they would go on for ever
  for (std::unique_ptr<grpc::Server>* server : {&server_, &health_server_}) {
    if (*server == nullptr) continue;
    (*server)->Shutdown(absl::ToChronoTime(absl::Now() + flush_time));
    (*server)->Wait();
    server->reset();
  }
}

}  // namespace pkv
