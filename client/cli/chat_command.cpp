// `pyramidkv chat`: a conversation that outlives errors and interrupted answers.
#include <iostream>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "client/cli/answer.h"
#include "client/cli/command_support.h"
#include "client/cli/interrupt.h"
#include "client/cli/line_reader.h"
#include "client/cli/prompt_input.h"
#include "client/conversation.h"
#include "client/report_table.h"
#include "client/utf8.h"

namespace pkv::client {
namespace {

constexpr int kInterrupted = 130;  // as shells say it of SIGINT
constexpr char kNoAnswerYet[] = "no answer yet";

class Chat {
 public:
  Chat(Client& client, GenerateOptions options, v1::Model model)
      : client_(client),
        options_(std::move(options)),
        model_(std::move(model)),
        conversation_(options_.system),
        reader_(make_line_reader(default_history_file())) {}

  // The exit code: where nobody watches, that of the last message that failed.
  int run() {
    const InterruptGuard guard;
    if (reader_->terminal() && !options_.quiet) {
      std::cerr << model_.id() << " at " << client_.target() << ", " << policy_line() << "\n"
                << "/help lists the commands, Ctrl-C stops an answer, Ctrl-D leaves.\n";
    }
    std::string line;
    while (!over_) {
      (void)InterruptGuard::taken();  // of an answer that was just over
      InterruptGuard::let_reads_return(true);
      const LineReader::Outcome outcome = reader_->read(line);
      InterruptGuard::let_reads_return(false);
      if (outcome == LineReader::Outcome::kEnd) break;
      if (outcome == LineReader::Outcome::kLine) take(line);
    }
    if (reader_->terminal() && !over_) std::cerr << "\n";
    return reader_->terminal() ? int{kGood} : code_;
  }

 private:
  void take(const std::string& line) {
    if (absl::StripAsciiWhitespace(line).empty()) return;
    const ChatLine words = read_chat_line(line);
    if (!words.problem.empty()) {
      code_ = usage_error(words.problem);
    } else if (words.command.empty()) {
      ask(words.text);
    } else {
      obey(words.command, words.arguments);
    }
  }

  void ask(const std::string& text) {
    if (first_invalid_utf8(text) != std::string::npos) {
      code_ = usage_error("the message is no UTF-8 text");
      return;
    }
    options_.request.chat = conversation_.asked(text);
    v1::GenerateRequest request;
    if (std::string error = build_request(options_.request, request); !error.empty()) {
      code_ = usage_error(error);
      return;
    }
    const StopOnInterrupt interrupt;
    v1::GenerateResponse reply;
    const AnswerView view{.stream = true, .json = options_.json, .quiet = options_.quiet};
    const auto result = fetch_answer(client_, request, view, reply, interrupt.token());
    if (result) {
      conversation_.answered(reply.choices(0).text());
      print_details(options_, reply);
      last_ = std::move(reply);
    } else if (interrupt.token().stop_requested()) {
      keep_part(reply.choices(0));
    } else {
      code_ = fail(client_, result.error,
                   {.surface = Surface::kChat, .max_tokens = options_.request.max_tokens.value_or(kDefaultMaxTokens)});
      std::cerr << "The message is kept: /retry sends it again.\n";
    }
  }

  // An answer that was stopped: what came of it belongs to the conversation.
  void keep_part(const v1::Choice& part) {
    const std::string& text = part.text();
    std::cerr << (text.empty() ? "stopped before it began; /retry asks again\n" : "stopped; what came is kept\n");
    if (!text.empty()) conversation_.answered(text);
    forget_report(absl::StrCat("the last answer was stopped after ", part.token_ids_size(),
                               " tokens, so there is no report of it"));
    if (reader_->terminal()) return;
    over_ = true;  // nobody is there to go on
    code_ = kInterrupted;
  }

  void obey(const std::string& command, const std::vector<std::string>& words) {
    if (command == "help") std::cerr << kChatHelp;
    if (command == "quit" || command == "exit") over_ = true;
    if (command == "stats") print_stats();
    if (command == "policy") set_policy(words);
    if (command == "budget" && !words.empty()) change_cache([&](PolicyOptions& cache) { cache.budget = words[0]; });
    if (command == "budget" && words.empty()) std::cerr << policy_line() << "\n";
    if (command == "save") save(words[0]);
    if (command == "load") load(words[0]);
    if (command == "retry") retry();
    if (command == "forget") forget(words);
    if (command == "reset") {
      conversation_.reset();
      forget_report(kNoAnswerYet);
      std::cerr << "forgotten; the next message begins a new conversation\n";
    }
  }

  void retry() {
    if (conversation_.unanswered()) {
      ask(std::string(*conversation_.unanswered()));
    } else {
      code_ = usage_error("every question has been answered; nothing to ask again");
    }
  }

  void forget(const std::vector<std::string>& words) {
    uint32_t count = 1;
    if (!words.empty() && !absl::SimpleAtoi(words[0], &count)) {
      code_ = usage_error(absl::StrCat("/forget: '", words[0], "' is no number of exchanges"));
      return;
    }
    const size_t forgotten = conversation_.forget(count);
    if (forgotten > 0) forget_report("no answer since /forget");
    std::cerr << "dropped " << forgotten << ", " << conversation_.exchanges() << " exchanges left\n";
  }

  void set_policy(const std::vector<std::string>& words) {
    if (words.empty()) {
      std::cerr << policy_line() << "\n";
      return;
    }
    change_cache([&](PolicyOptions& cache) {
      // Parameters and a budget belong to the policy they were named for.
      const PolicyOptions before = cache;
      cache = {.policy = words[0],
               .kv_dtype = before.kv_dtype,
               .prefill = before.prefill,
               .prefill_tokens = before.prefill_tokens};
      if (words[0] != "full") {
        cache.pins = before.pins;
        cache.pin_system = before.pin_system;
      }
      if (words.size() > 1) cache.budget = words[1];
      if (words.size() > 2) cache.scope = words[2];
    });
  }

  // Changes what is asked of the cache, where the words make sense; else nothing changes.
  template <typename Change>
  void change_cache(Change&& change) {
    PolicyOptions wished = options_.request.cache;
    change(wished);
    v1::CachePolicy policy;
    if (std::string error = build_policy(wished, policy); !error.empty()) {
      code_ = usage_error(error);
      return;
    }
    if (wished.preset.empty()) {
      if (const int code = check_presets(client_, {&policy}); code != kGood) {
        code_ = code;
        return;
      }
    }
    options_.request.cache = wished;
    std::cerr << policy_line() << "\n";
  }

  std::string policy_line() const {
    v1::CachePolicy policy;
    (void)build_policy(options_.request.cache, policy);
    return absl::StrCat("cache policy: ", describe_policy(policy));
  }

  void print_stats() const {
    std::cerr << policy_line() << "\n" << conversation_.exchanges() << " exchanges";
    if (last_) {
      std::cerr << ", " << last_->usage().total_tokens() << " of at most " << model_.max_model_len() << " tokens\n"
                << report_table({{reply_title(*last_), last_->cache(), last_->usage(), last_->timings()}})
                << layer_bars(last_->cache());
    } else {
      std::cerr << ", " << why_no_report_ << "\n";
    }
  }

  void save(const std::string& path) {
    if (write_all(path, conversation_.to_json())) {
      std::cerr << "saved " << conversation_.exchanges() << " exchanges in " << path << "\n";
    } else {
      code_ = usage_error(absl::StrCat("/save: ", cannot_write(path)));
    }
  }

  void load(const std::string& path) {
    std::string json;
    if (!read_all(path, json)) {
      code_ = usage_error(absl::StrCat("/load: ", cannot_read(path)));
      return;
    }
    if (std::string error = conversation_.read_json(json); !error.empty()) {
      code_ = usage_error(absl::StrCat("/load: ", path, " ", error));
      return;
    }
    forget_report("no answer since /load");
    std::cerr << "loaded " << conversation_.exchanges() << " exchanges\n";
  }

  // There is no report any more of the conversation as it stands.
  void forget_report(std::string why) {
    last_.reset();
    why_no_report_ = std::move(why);
  }

  Client& client_;
  GenerateOptions options_;
  const v1::Model model_;
  Conversation conversation_;
  std::unique_ptr<LineReader> reader_;
  std::optional<v1::GenerateResponse> last_;  // the answer that ends the conversation
  std::string why_no_report_ = kNoAnswerYet;  // where there is none
  bool over_ = false;
  int code_ = kGood;
};

}  // namespace

int run_chat(Client& client, GenerateOptions options) {
  options.report = options.request.report;
  if (std::string error = read_sampling(options); !error.empty()) return usage_error(error);
  v1::GenerateRequest request;
  if (std::string error = build_request(options.request, request); !error.empty()) return usage_error(error);
  client.set_deadline(options.deadline);
  int code = kGood;
  const std::optional<v1::Model> model = find_model(client, options.request.model, code);
  if (code != kGood) return code;
  if (model && !model->has_chat_template()) {
    return fail(client, {.code = grpc::StatusCode::FAILED_PRECONDITION,
                         .message = absl::StrCat(model->id(),
                                                 " has no chat format that the server knows; "
                                                 "'pyramidkv generate' continues texts")});
  }
  if (options.request.cache.preset.empty()) {
    if (code = check_presets(client, {&request.cache_policy()}); code != kGood) return code;
  }
  options.has_template = true;
  return Chat(client, std::move(options), model.value_or(v1::Model())).run();
}

}  // namespace pkv::client
