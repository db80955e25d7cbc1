#include "server/rpc/unary_call.h"

#include <limits>
#include <string>
#include <utility>

#include "server/rpc/conversion.h"
#include "server/rpc/errors.h"
#include "server/rpc/wire.h"

namespace pkv {
namespace {

namespace pb = ::pyramidkv::v1;

class UnaryCall final : public GenerationCall {
 public:
  UnaryCall(const ServedModel& served, ServerState& state, ValidRequest valid, grpc::ByteBuffer& response)
      : GenerationCall(served, state, std::move(valid)), response_(response) {}

  // Before submit: the engine may finish at once.
  void attach(grpc::ServerUnaryReactor* reactor) { reactor_ = reactor; }
  void refuse(const absl::Status& status) { reactor_->Finish(close(status)); }

 private:
  void advance() override {
    if (!error_.ok()) {
      reactor_->Finish(close(error_));
    } else if (result_) {
      response_ = serialize_message(reply());
      reactor_->Finish(close(absl::OkStatus()));
    }
  }

  pb::GenerateResponse reply() {
    pb::GenerateResponse message;
    message.set_request_id(valid_.request->id);
    message.set_model(served_.id);
    message.set_seed(valid_.request->sampling.seed);
    pb::Choice& choice = *message.add_choices();
    set_piece(output_.take(std::numeric_limits<size_t>::max()), *served_.tokenizer, choice);
    set_ending(choice);
    set_usage(*result_, *message.mutable_usage());
    set_timings(result_->timings, *message.mutable_timings());
    if (valid_.report != ReportDetail::kNone) {
      set_report(result_->cache, valid_.request->policy, valid_.report, *message.mutable_cache());
    }
    return message;
  }

  grpc::ByteBuffer& response_;  // gRPC's, valid until the reactor is finished
  grpc::ServerUnaryReactor* reactor_ = nullptr;
};

class UnaryReactor final : public grpc::ServerUnaryReactor {
 public:
  explicit UnaryReactor(std::shared_ptr<UnaryCall> call) : call_(std::move(call)) {}
  void OnCancel() override { call_->cancel(); }
  void OnDone() override {
    call_->log_end();
    delete this;
  }

 private:
  std::shared_ptr<UnaryCall> call_;
};

}  // namespace

void add_retry_trailer(const absl::Status& status, grpc::CallbackServerContext& context) {
  const absl::Duration delay = error_retry_delay(status);
  if (delay > absl::ZeroDuration()) {
    context.AddTrailingMetadata("grpc-retry-pushback-ms", std::to_string(absl::ToInt64Milliseconds(delay)));
  }
}

grpc::ServerUnaryReactor* start_unary_call(const ServedModel& served, ServerState& state, ValidRequest valid,
                                           grpc::CallbackServerContext& context, grpc::ByteBuffer& response) {
  auto call = std::make_shared<UnaryCall>(served, state, std::move(valid), response);
  auto* reactor = new UnaryReactor(call);
  call->attach(reactor);
  if (const absl::Status submitted = served.engine->submit(call->request(), call); !submitted.ok()) {
    const absl::Status error = submit_error(submitted);
    state.metrics().count_rejection(error_reason(error));
    add_retry_trailer(error, context);
    call->refuse(error);
  }
  return reactor;
}

}  // namespace pkv
