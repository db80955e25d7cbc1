#include "server/rpc/unary_call.h"

#include <limits>
#include <utility>

#include "server/rpc/wire.h"

namespace pkv {
namespace {

namespace pb = ::pyramidkv::v1;

class UnaryCall final : public GenerationCall {
 public:
  UnaryCall(const ServedModel& served, ServerState& state, ValidRequest valid, CallInfo info,
            grpc::ByteBuffer& response)
      : GenerationCall(served, state, std::move(valid), std::move(info)), response_(response) {}

  // Before submit: the engine may finish at once.
  void attach(grpc::ServerUnaryReactor* reactor) { reactor_ = reactor; }

 private:
  void advance() override {
    if (!error_.ok()) {
      reactor_->Finish(close(error_));
    } else if (result_) {
      response_ = request_->compare_with.empty() ? serialize_message(reply()) : serialize_message(comparison());
      reactor_->Finish(close(absl::OkStatus()));
    }
  }

  pb::GenerateResponse reply() {
    pb::GenerateResponse message;
    message.set_request_id(request_->id);
    message.set_model(served_.id);
    message.set_seed(request_->sampling.seed);
    pb::Choice& choice = *message.add_choices();
    set_piece(output_.take(std::numeric_limits<size_t>::max()), *served_.tokenizer, choice);
    set_ending(message, choice);
    return message;
  }

  pb::CompareResponse comparison() {
    pb::CompareResponse message;
    *message.mutable_baseline() = reply();
    for (size_t i = 0; i < result_->comparisons.size(); ++i) {
      const PolicyComparison& result = result_->comparisons[i];
      pb::Comparison& out = *message.add_comparisons();
      out.mutable_kl()->Add(result.kl.begin(), result.kl.end());
      out.set_kl_mean(result.kl_mean);
      out.set_top1_agreement(result.top1_agreement);
      out.set_first_divergence(result.first_divergence);
      out.set_text(answer_text(*served_.tokenizer, *request_, result.tokens));
      if (return_token_ids_) out.mutable_token_ids()->Add(result.tokens.begin(), result.tokens.end());
      if (report_ == ReportDetail::kNone) continue;
      set_report(result.cache, request_->compare_with[i], report_, *out.mutable_cache());
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

grpc::ServerUnaryReactor* start_unary_call(const ServedModel& served, ServerState& state, ValidRequest valid,
                                           CallInfo info, grpc::CallbackServerContext& context,
                                           grpc::ByteBuffer& response) {
  auto call = std::make_shared<UnaryCall>(served, state, std::move(valid), std::move(info), response);
  auto* reactor = new UnaryReactor(call);
  call->attach(reactor);
  GenerationCall::submit(call, context);
  return reactor;
}

}  // namespace pkv
