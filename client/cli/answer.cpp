#include "client/cli/answer.h"

#include <unistd.h>

#include <iostream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cli/command_support.h"
#include "client/cli/progress.h"
#include "client/report_table.h"
#include "client/summary.h"
#include "client/utf8.h"

namespace pkv::client {
namespace {

// Puts the reply together from the messages of a stream and shows them on the way.
class Assembler {
 public:
  Assembler(const AnswerView& view, v1::GenerateResponse& reply)
      : view_(view),
        terminal_(isatty(STDOUT_FILENO) == 1),
        reply_(reply),
        progress_(!view.quiet, "waiting for the server") {}

  void take(const v1::GenerateStreamResponse& event) {
    if (view_.json && view_.stream) std::cout << to_json(event, false) << std::endl;
    if (event.has_start()) take_start(event.start());
    if (event.has_progress())
      progress_.set(absl::StrFormat("reading the prompt: %.0f %%", 100 * event.progress().prefill_done()));
    if (event.has_delta()) take_delta(event.delta());
  }

  void finish(const v1::StreamEnd* end) {
    progress_.end();
    if (end) {
      v1::Choice whole = end->choices_size() > 0 ? end->choices(0) : v1::Choice();
      whole.set_text(choice_.text());
      *whole.mutable_token_ids() = choice_.token_ids();
      *whole.mutable_logprobs() = choice_.logprobs();
      choice_ = std::move(whole);
      *reply_.mutable_usage() = end->usage();
      *reply_.mutable_timings() = end->timings();
      if (end->has_cache()) *reply_.mutable_cache() = end->cache();
    }
    *reply_.add_choices() = std::move(choice_);
    if (!view_.silent) print_end(end != nullptr);
  }

 private:
  void print_end(bool whole) const {
    if (view_.json) {
      if (!view_.stream && whole) std::cout << to_json(reply_, false) << std::endl;
      return;
    }
    if (!view_.stream && whole) std::cout << shown(reply_.choices(0).text());
    if (whole || printed_) std::cout << std::endl;
  }

  void take_start(const v1::StreamStart& start) {
    reply_.set_request_id(start.request_id());
    reply_.set_model(start.model());
    reply_.set_seed(start.seed());
    progress_.set(absl::StrCat("reading the prompt of ", start.prompt_tokens(), " tokens"));
  }

  void take_delta(const v1::StreamDelta& delta) {
    choice_.mutable_text()->append(delta.text());
    choice_.mutable_token_ids()->MergeFrom(delta.token_ids());
    choice_.mutable_logprobs()->MergeFrom(delta.logprobs());
    tokens_ += delta.token_ids_size();
    if (!view_.stream) {
      progress_.set(absl::StrCat("answering: ", tokens_, " tokens"));
      return;
    }
    progress_.end();
    if (view_.json) return;
    std::cout << shown(delta.text()) << std::flush;
    printed_ = printed_ || !delta.text().empty();
  }

  std::string shown(const std::string& text) const { return terminal_ ? for_terminal(text) : text; }

  const AnswerView& view_;
  const bool terminal_;
  v1::GenerateResponse& reply_;
  Progress progress_;
  v1::Choice choice_;
  int tokens_ = 0;
  bool printed_ = false;
};

}  // namespace

Result<v1::StreamEnd> fetch_answer(Client& client, const v1::GenerateRequest& request, const AnswerView& view,
                                   v1::GenerateResponse& reply, std::stop_token stop) {
  Assembler assembler(view, reply);
  auto result = client.generate_stream(
      request,
      [&](const v1::GenerateStreamResponse& event) {
        assembler.take(event);
        return true;
      },
      std::move(stop));
  assembler.finish(result ? &*result : nullptr);
  return result;
}

void print_details(const GenerateOptions& options, const v1::GenerateResponse& reply) {
  if (options.json) return;
  const RequestOptions& request = options.request;
  const bool logprobs = request.logprobs || request.top_logprobs;
  if ((logprobs || request.token_ids) && reply.choices_size() > 0)
    std::cerr << "\n" << token_table(reply.choices(0), logprobs);
  if (!options.report.empty() && options.report != "none") {
    std::cerr << "\n"
              << report_table({{reply_title(reply), reply.cache(), reply.usage(), reply.timings()}})
              << layer_bars(reply.cache());
  } else if (!options.quiet) {
    std::cerr << answer_summary(reply) << "\n";
  }
  if (options.quiet) return;
  const std::string hint = answer_hint(reply, options.request.chat.empty(), options.has_template);
  if (!hint.empty()) std::cerr << "pyramidkv: " << hint << "\n";
}

}  // namespace pkv::client
