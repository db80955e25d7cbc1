#include "server/rpc/unary_call.h"

#include <utility>

#include "server/api/conversion.h"
#include "server/rpc/grpc_status.h"
#include "server/rpc/wire.h"

namespace pkv {
namespace {

namespace pb = ::pyramidkv::v1;

class UnaryCall final : public GenerationCall {
 public:
  UnaryCall(ServerState& state, std::shared_ptr<ReplyWatch> watch, CallInfo info, grpc::CallbackServerContext& context,
            grpc::ByteBuffer& response)
      : GenerationCall(state, std::move(info)), watch_(std::move(watch)), context_(context), response_(response) {
    answer_whole();
  }
  void attach(grpc::ServerUnaryReactor* reactor) { reactor_ = reactor; }
  void done() {
    watch_->end(context_);
    log_end();
  }

 private:
  void send_end(OutputAssembler::Piece rest) override {
    pb::GenerateResponse message = reply(std::move(rest));
    response_ =
        request().compare_with.empty() ? serialize_message(message) : serialize_message(comparison(std::move(message)));
    watch_->begin(context_);
    reactor_->Finish(grpc::Status::OK);
  }
  void send_error() override {
    watch_->begin(context_);
    reactor_->Finish(end_status(error(), context_));
  }

  pb::GenerateResponse reply(OutputAssembler::Piece whole) const {
    pb::GenerateResponse message;
    message.set_request_id(request().id);
    message.set_model(served().id);
    message.set_seed(request().sampling.seed);
    pb::Choice& choice = *message.add_choices();
    set_piece(std::move(whole), *served().tokenizer, choice);
    set_ending(ending(), message, choice);
    return message;
  }

  pb::CompareResponse comparison(pb::GenerateResponse baseline) const {
    pb::CompareResponse message;
    *message.mutable_baseline() = std::move(baseline);
    for (size_t i = 0; i < result().comparisons.size(); ++i) {
      const PolicyComparison& rival = result().comparisons[i];
      pb::Comparison& out = *message.add_comparisons();
      out.mutable_kl()->Add(rival.kl.begin(), rival.kl.end());
      out.set_kl_mean(rival.kl_mean);
      out.set_top1_agreement(rival.top1_agreement);
      out.set_first_divergence(rival.first_divergence);
      out.set_text(answer_text(*served().tokenizer, request(), rival.tokens));
      if (output().return_token_ids) out.mutable_token_ids()->Add(rival.tokens.begin(), rival.tokens.end());
      if (report() == ReportDetail::kNone) continue;
      set_report(rival.cache, request().compare_with[i], report(), *out.mutable_cache());
    }
    return message;
  }

  const std::shared_ptr<ReplyWatch> watch_;
  grpc::CallbackServerContext& context_;  // gRPC's, as the next two, valid until the reactor is finished
  grpc::ByteBuffer& response_;
  grpc::ServerUnaryReactor* reactor_ = nullptr;
};

class UnaryReactor final : public grpc::ServerUnaryReactor {
 public:
  explicit UnaryReactor(std::shared_ptr<UnaryCall> call) : call_(std::move(call)) {}
  void OnCancel() override { call_->cancel(); }
  void OnDone() override {
    call_->done();
    delete this;
  }

 private:
  std::shared_ptr<UnaryCall> call_;
};

}  // namespace

grpc::ServerUnaryReactor* start_unary_call(ServerState& state, std::shared_ptr<ReplyWatch> watch, CallInfo info,
                                           grpc::CallbackServerContext& context, grpc::ByteBuffer& response,
                                           uint64_t bytes, GenerationCall::Reader read) {
  auto call = std::make_shared<UnaryCall>(state, std::move(watch), std::move(info), context, response);
  auto* reactor = new UnaryReactor(call);
  call->attach(reactor);
  call->start(bytes, std::move(read));
  return reactor;
}

}  // namespace pkv
