// A small C++ client of PyramidKV Server: blocking calls over one channel, errors with the server's own reason and
// fields.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "client/access.h"
#include "pyramidkv/v1/generation.grpc.pb.h"
#include "pyramidkv/v1/model.grpc.pb.h"
#include "pyramidkv/v1/stats.grpc.pb.h"

namespace pkv::client {

namespace v1 = ::pyramidkv::v1;

// What went wrong with a call. `reachable` is false where no connection to the server could be made or it was lost,
// `bad_target` is true where that is because the server's address is none, `answered` where something listens at the
// address that this client cannot talk to.
struct Error {
  grpc::StatusCode code = grpc::StatusCode::UNKNOWN;
  std::string message;
  std::string reason;                                       // ErrorInfo.reason, e.g. BAD_CACHE_POLICY
  std::map<std::string, std::string> metadata;              // ErrorInfo.metadata, e.g. smallest_budget_tokens
  std::vector<std::pair<std::string, std::string>> fields;  // field violations: path, description
  bool reachable = true;
  bool bad_target = false;
  bool answered = false;

  std::string describe() const;  // one or more lines for people
};

// A reply or an error.
template <typename T>
struct Result {
  std::optional<T> value;
  Error error;
  explicit operator bool() const { return value.has_value(); }
  const T& operator*() const { return *value; }
  const T* operator->() const { return &*value; }
};

// grpc.health.v1.HealthCheckResponse.ServingStatus.
enum class Health : uint8_t { kUnknown = 0, kServing = 1, kNotServing = 2, kServiceUnknown = 3 };

class Client {
 public:
  // `target`: HOST:PORT.
  explicit Client(const std::string& target, const Access& access = {});

  // Deadline of every later call; unset: none.
  void set_deadline(std::optional<double> seconds) { deadline_seconds_ = seconds; }

  Result<v1::GenerateResponse> generate(const v1::GenerateRequest& request);
  // Calls `on_event` for every message; returning false, or a request to stop, cancels the call. The result is the
  // closing message.
  Result<v1::StreamEnd> generate_stream(const v1::GenerateRequest& request,
                                        const std::function<bool(const v1::GenerateStreamResponse&)>& on_event,
                                        std::stop_token stop = {});
  Result<v1::TokenizeResponse> tokenize(const v1::TokenizeRequest& request);
  Result<v1::DetokenizeResponse> detokenize(const v1::DetokenizeRequest& request);
  Result<v1::EstimateCacheResponse> estimate_cache(const v1::EstimateCacheRequest& request);
  Result<v1::CompareResponse> compare(const v1::CompareRequest& request);
  Result<v1::ListModelsResponse> list_models();
  Result<v1::ListCachePoliciesResponse> list_cache_policies();
  Result<v1::GetStatsResponse> get_stats(bool include_requests);
  // Calls `on_message` for every message until it returns false; then there is no error. Else: why the stream ended.
  std::optional<Error> watch_stats(const v1::WatchStatsRequest& request,
                                   const std::function<bool(const v1::WatchStatsResponse&)>& on_message);
  // Asks the standard health service about `service`; "" is the whole server. Not reachable is also who does not
  // answer in time.
  Result<Health> check_health(const std::string& service, std::chrono::nanoseconds timeout);

  // A failed call's status with the details the server sent beside it.
  static Error error_of(const grpc::Status& status);

  const std::string& target() const { return target_; }
  const Access& access() const { return access_; }

 private:
  bool connect();
  Error unreachable() const;
  std::string handshake_problem() const;
  template <typename Reply, typename Call>
  Result<Reply> call(Call&& invoke);

  std::string target_;
  Access access_;
  std::optional<double> deadline_seconds_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::GenerationService::Stub> generation_;
  std::unique_ptr<v1::ModelService::Stub> models_;
  std::unique_ptr<v1::StatsService::Stub> stats_;
};

}  // namespace pkv::client
