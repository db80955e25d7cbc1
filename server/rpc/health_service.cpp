#include "server/rpc/health_service.h"

#include <google/protobuf/unknown_field_set.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/impl/codegen/server_callback_handlers.h>

#include <array>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "server/api/errors.h"
#include "server/api/repeat_every.h"
#include "server/rpc/grpc_status.h"
#include "server/rpc/health_descriptor.h"
#include "server/rpc/refused_stream.h"

namespace pkv {
namespace {

using grpc::ByteBuffer;

constexpr std::chrono::milliseconds kRefreshInterval(250);
constexpr size_t kMaxWatches = 4096;
constexpr absl::Duration kRetryDelay = absl::Seconds(10);
constexpr size_t kMaxRequestBytes = 4096;  // names are short; anybody may ask

constexpr std::array<std::string_view, 4> kReadyNames = {"", "pyramidkv.v1.GenerationService",
                                                         "pyramidkv.v1.ModelService", "pyramidkv.v1.StatsService"};
constexpr std::string_view kLiveName = "live";

enum class Subject : uint8_t { kReady, kLive, kUnknown };

Subject subject_of(std::string_view service) {
  if (service == kLiveName) return Subject::kLive;
  for (const std::string_view name : kReadyNames) {
    if (service == name) return Subject::kReady;
  }
  return Subject::kUnknown;
}

// HealthCheckResponse.ServingStatus
enum class ServingStatus : uint8_t { kServing = 1, kNotServing = 2, kServiceUnknown = 3 };

// HealthCheckRequest.service = 1
std::optional<std::string> read_service(const ByteBuffer& buffer) {
  grpc::Slice slice;
  google::protobuf::UnknownFieldSet fields;
  if (buffer.Length() > kMaxRequestBytes) return std::nullopt;
  if (!buffer.DumpToSingleSlice(&slice).ok() || !fields.ParseFromArray(slice.begin(), static_cast<int>(slice.size()))) {
    return std::nullopt;
  }
  std::string service;
  for (int i = 0; i < fields.field_count(); ++i) {
    const google::protobuf::UnknownField& field = fields.field(i);
    if (field.number() == 1 && field.type() == google::protobuf::UnknownField::TYPE_LENGTH_DELIMITED) {
      service = field.length_delimited();
    }
  }
  return service;
}

// HealthCheckResponse.status = 1
ByteBuffer response_of(ServingStatus status) {
  const grpc::Slice slice(std::string{'\x08', static_cast<char>(status)});
  return ByteBuffer(&slice, 1);
}

absl::Status unreadable() { return bad_input("", "the request is no HealthCheckRequest"); }

// Bare, as the protocol has it: that the name is unknown is an answer, and no fault of the call.
grpc::Status unknown_service(const std::string& service) {
  std::string known = absl::StrCat("\"", std::string(kLiveName), "\"");
  for (const std::string_view name : kReadyNames) absl::StrAppend(&known, ", \"", std::string(name), "\"");
  return {grpc::StatusCode::NOT_FOUND, absl::StrCat("service: ", shown(service), " is none of those here, ", known)};
}

absl::Status too_many_watches() {
  return make_error(
      {.reason = kTooManyWatchers,
       .description = absl::StrCat("there are ", kMaxWatches,
                                   " watches of the health already, as many as there may be; Check answers"),
       .metadata = {{"max", absl::StrCat(kMaxWatches)}},
       .retry_delay = kRetryDelay});
}

}  // namespace

// The open watches. Shared with them: gRPC may be done with the last one after the service is gone.
class HealthService::Watches {
 public:
  explicit Watches(HealthChecks checks) : checks_(std::move(checks)) {}

  ServingStatus status(Subject subject) const {
    if (subject == Subject::kUnknown) return ServingStatus::kServiceUnknown;
    const bool good = (subject == Subject::kLive ? checks_.live() : checks_.ready()).ok();
    return good ? ServingStatus::kServing : ServingStatus::kNotServing;
  }

  static grpc::ServerWriteReactor<ByteBuffer>* open(const std::shared_ptr<Watches>& watches, Subject subject,
                                                    grpc::CallbackServerContext& context);
  void refresh();
  void await_none(absl::Time deadline);
  void close();

 private:
  class Watch;
  const HealthChecks checks_;
  std::mutex mutex_;  // guards what follows, the members of every watch included
  std::set<Watch*> open_;
  std::condition_variable none_;  // open_ has become empty
  bool closed_ = false;
};

// One watch: the newest status wins, and one message is under way at a time.
class HealthService::Watches::Watch final : public grpc::ServerWriteReactor<ByteBuffer> {
 public:
  Watch(std::shared_ptr<Watches> watches, Subject subject, grpc::CallbackServerContext& context)
      : watches_(std::move(watches)), subject_(subject), context_(context) {}

  // With the lock held.
  void advance() {
    if (writing_ || finished_) return;
    const ServingStatus now = watches_->closed_ ? ServingStatus::kNotServing : watches_->status(subject_);
    if (lost_) {
      finish(grpc::Status::CANCELLED);
    } else if (now != sent_) {
      sent_ = now;
      writing_ = true;
      buffer_ = response_of(now);
      StartWrite(&buffer_);
    } else if (watches_->closed_) {
      finish(end_status(server_stopping(), context_));
    }
  }

  void OnWriteDone(bool ok) override {
    const std::lock_guard lock(watches_->mutex_);
    writing_ = false;
    lost_ = lost_ || !ok;
    advance();
  }
  void OnCancel() override {
    const std::lock_guard lock(watches_->mutex_);
    lost_ = true;
    advance();
  }
  void OnDone() override {
    {
      const std::lock_guard lock(watches_->mutex_);
      watches_->open_.erase(this);
      if (watches_->open_.empty()) watches_->none_.notify_all();
    }
    delete this;
  }

 private:
  void finish(const grpc::Status& status) {
    finished_ = true;
    Finish(status);
  }

  const std::shared_ptr<Watches> watches_;
  const Subject subject_;
  grpc::CallbackServerContext& context_;  // gRPC's, valid until the watch is finished
  ByteBuffer buffer_;                     // of the write under way
  std::optional<ServingStatus> sent_;
  bool writing_ = false;
  bool lost_ = false;  // the caller is gone
  bool finished_ = false;
};

grpc::ServerWriteReactor<ByteBuffer>* HealthService::Watches::open(const std::shared_ptr<Watches>& watches,
                                                                   Subject subject,
                                                                   grpc::CallbackServerContext& context) {
  const std::lock_guard lock(watches->mutex_);
  if (watches->open_.size() >= kMaxWatches) return refuse_stream(too_many_watches(), context);
  auto* watch = new Watch(watches, subject, context);
  watches->open_.insert(watch);
  watch->advance();
  return watch;
}

void HealthService::Watches::refresh() {
  const std::lock_guard lock(mutex_);
  for (Watch* watch : open_) watch->advance();
}

void HealthService::Watches::await_none(absl::Time deadline) {
  std::unique_lock lock(mutex_);
  none_.wait_until(lock, absl::ToChronoTime(deadline), [&] { return open_.empty(); });
}

void HealthService::Watches::close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
  for (Watch* watch : open_) watch->advance();
}

HealthService::HealthService(HealthChecks checks) : watches_(std::make_shared<Watches>(std::move(checks))) {
  using grpc::internal::RpcMethod;
  register_health_descriptor();
  AddMethod(new grpc::internal::RpcServiceMethod("/grpc.health.v1.Health/Check", RpcMethod::NORMAL_RPC, nullptr));
  MarkMethodRawCallback(
      0,
      new grpc::internal::CallbackUnaryHandler<ByteBuffer, ByteBuffer>(
          [watches = watches_](grpc::CallbackServerContext* context, const ByteBuffer* request, ByteBuffer* response) {
            grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
            const std::optional<std::string> service = read_service(*request);
            if (!service) {
              reactor->Finish(to_grpc_status(unreadable()));
            } else if (const Subject subject = subject_of(*service); subject == Subject::kUnknown) {
              reactor->Finish(unknown_service(*service));
            } else {
              *response = response_of(watches->status(subject));
              reactor->Finish(grpc::Status::OK);
            }
            return reactor;
          }));
  AddMethod(new grpc::internal::RpcServiceMethod("/grpc.health.v1.Health/Watch", RpcMethod::SERVER_STREAMING, nullptr));
  MarkMethodRawCallback(1,
                        new grpc::internal::CallbackServerStreamingHandler<ByteBuffer, ByteBuffer>(
                            [watches = watches_](grpc::CallbackServerContext* context,
                                                 const ByteBuffer* request) -> grpc::ServerWriteReactor<ByteBuffer>* {
                              const std::optional<std::string> service = read_service(*request);
                              if (!service) return refuse_stream(unreadable(), *context);
                              return Watches::open(watches, subject_of(*service), *context);
                            }));
  // A stall is nobody's event: it has to be looked for.
  monitor_ = std::jthread([watches = watches_](const std::stop_token& stop) {
    repeat_every(kRefreshInterval, stop, [&watches] { watches->refresh(); });
  });
}

HealthService::~HealthService() = default;
void HealthService::refresh() { watches_->refresh(); }
void HealthService::await_unwatched(absl::Time deadline) { watches_->await_none(deadline); }
void HealthService::close() { watches_->close(); }

}  // namespace pkv
