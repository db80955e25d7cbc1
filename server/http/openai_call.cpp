#include "server/http/openai_call.h"

#include <functional>
#include <optional>
#include <stop_token>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "kernels/status_macros.h"
#include "server/api/accept.h"
#include "server/api/report_size.h"
#include "server/http/openai_error.h"
#include "server/http/openai_reply.h"

namespace pkv {
namespace {

constexpr char kJson[] = "application/json";
// Of a stream while its prompt is read: a sixth of what proxies usually wait for the next bytes.
constexpr absl::Duration kLongestSilence = absl::Seconds(10);

// What both kinds of call do with what a call knows.
OpenAiReply reply_of(const OpenAiAnswer& answer, const ServedModel& served, const Request& request,
                     const OutputOptions& output, const CallInfo& info) {
  return OpenAiReply(answer,
                     {.request_id = request.id,
                      .model = served.id,
                      .created = info.arrived,
                      .logprobs = output.logprobs,
                      .echo = output.echo},
                     *served.tokenizer);
}

std::string id_header(const std::string& request_id) { return absl::StrCat("X-Request-Id: ", request_id, "\r\n"); }

// Not known to be a stream until its body is read.
class OpenAiCall final : public GenerationCall {
 public:
  OpenAiCall(ServerState& state, CallInfo info, std::shared_ptr<HttpExchange> exchange, std::function<absl::Time()> now)
      : GenerationCall(state, std::move(info)), exchange_(std::move(exchange)), now_(std::move(now)) {}

  absl::StatusOr<AcceptedRequest> read(const HttpRequest& http, OpenAiEndpoint endpoint, CallInfo& info,
                                       const std::stop_token& stop) {
    PKV_ASSIGN_OR_RETURN(OpenAiRequest request, read_openai_request(http.body, endpoint));
    answer_ = request.answer;
    if (!answer_.stream) answer_whole();
    request.message.set_request_id(http.request_id);
    absl::StatusOr<AcceptedRequest> accepted = accept(request.message, info, stop);
    if (!accepted.ok()) return about_openai_field(accepted.status(), endpoint);
    return accepted;
  }

 private:
  absl::StatusOr<AcceptedRequest> accept(const pyramidkv::v1::GenerateRequest& message, CallInfo& info,
                                         const std::stop_token& stop) {
    PKV_ASSIGN_OR_RETURN(AcceptedRequest accepted, accept_request(message, state(), stop, info));
    if (answer_.stream) return accepted;
    PKV_RETURN_IF_ERROR(
        check_logprob_size(accepted.valid.request(), *accepted.served, state().limits()->max_reply_bytes));
    return accepted;
  }
  void send_start() override {
    reply_.emplace(reply_of(answer_, served(), request(), output(), info()));
    silent_since_ = now_();
    exchange_->begin({.content_type = "text/event-stream; charset=utf-8",
                      .body = reply_->first(),
                      .headers = absl::StrCat("Cache-Control: no-cache\r\n", id_header(request().id))},
                     when_sent());
  }
  void send_progress(double prefill_done) override {
    const absl::Time now = now_();
    if (now - silent_since_ < kLongestSilence) return sent(true);
    silent_since_ = now;
    exchange_->write(OpenAiReply::progress(prefill_done), when_sent());
  }
  void send_piece(OutputAssembler::Piece piece) override { exchange_->write(reply_->next(piece), when_sent()); }
  void send_end(OutputAssembler::Piece rest) override {
    if (reply_) return exchange_->end(reply_->last(ending()), when_done());
    OpenAiReply reply = reply_of(answer_, served(), request(), output(), info());
    exchange_->respond({.content_type = kJson, .body = reply.whole(rest, ending()), .headers = id_header(request().id)},
                       when_done());
  }
  void send_error() override {
    if (reply_) return exchange_->end(openai_error_event(error()), when_done());
    HttpResponse response = openai_error(error());
    if (!info().request_id.empty()) response.headers += id_header(info().request_id);
    exchange_->respond(std::move(response), when_done());
  }

  HttpExchange::Done when_sent() {
    return [self = shared_from_this(), this](bool ok) { sent(ok); };
  }
  HttpExchange::Done when_done() {
    return [self = shared_from_this(), this](bool) { log_end(); };
  }

  const std::shared_ptr<HttpExchange> exchange_;
  const std::function<absl::Time()> now_;
  OpenAiAnswer answer_;
  std::optional<OpenAiReply> reply_;  // of a stream, from its start
  absl::Time silent_since_;           // while no piece of it has been sent
};

}  // namespace

void start_openai_call(ServerState& state, OpenAiEndpoint endpoint, HttpRequest request,
                       std::shared_ptr<HttpExchange> exchange, std::function<absl::Time()> now) {
  CallInfo info{.method = endpoint == OpenAiEndpoint::kChat ? "POST /v1/chat/completions" : "POST /v1/completions",
                .peer = request.peer,
                .arrived = absl::Now(),
                .trace = parse_traceparent(request.traceparent),
                .credentials = read_authorization(request.authorization),
                .request_id = is_request_id(request.request_id) ? request.request_id : ""};
  auto call = std::make_shared<OpenAiCall>(state, std::move(info), exchange, std::move(now));
  exchange->when_gone([weak = std::weak_ptr<OpenAiCall>(call)] {
    if (const auto gone = weak.lock()) gone->cancel();
  });
  const uint64_t bytes = request.body.size();
  // The call is kept alive by what calls the function.
  call->start(bytes,
              [&reader = *call, endpoint, http = std::move(request)](CallInfo& known, const std::stop_token& stop) {
                return reader.read(http, endpoint, known, stop);
              });
}

}  // namespace pkv
