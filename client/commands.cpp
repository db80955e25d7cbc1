// Runs commands against a server and prints what comes back.
#include "client/commands.h"

#include <unistd.h>

#include <chrono>
#include <iostream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/command_support.h"
#include "client/report_table.h"
#include "client/stats_view.h"

namespace pkv::client {
namespace {

// Shows how far a long prompt is: redrawn in place on a terminal, a line every two seconds elsewhere.
class Progress {
 public:
  void update(double done) {
    const auto now = std::chrono::steady_clock::now();
    if (now - last_ < (terminal_ ? std::chrono::milliseconds(100) : std::chrono::milliseconds(2000))) return;
    last_ = now;
    std::cerr << absl::StrFormat(terminal_ ? "\rreading the prompt: %3.0f %%" : "reading the prompt: %3.0f %%\n",
                                 100 * done)
              << std::flush;
    shown_ = terminal_;
  }
  void clear() {
    if (shown_) std::cerr << "\r\x1b[2K" << std::flush;
    shown_ = false;
  }

 private:
  const bool terminal_ = isatty(STDERR_FILENO);
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
  bool shown_ = false;
};

// Streams one answer; `reply` becomes what the unary call would have answered.
Result<v1::StreamEnd> stream_answer(Client& client, const v1::GenerateRequest& request, bool json,
                                    v1::GenerateResponse& reply) {
  Progress progress;
  std::string text;
  auto result = client.generate_stream(request, [&](const v1::GenerateStreamResponse& event) {
    if (json) std::cout << to_json(event, false) << std::endl;
    if (event.has_start()) {
      reply.set_request_id(event.start().request_id());
      reply.set_model(event.start().model());
      reply.set_seed(event.start().seed());
    } else if (event.has_progress()) {
      if (!json) progress.update(event.progress().prefill_done());
    } else if (event.has_delta()) {
      progress.clear();
      text += event.delta().text();
      if (!json) std::cout << event.delta().text() << std::flush;
    }
    return true;
  });
  progress.clear();
  if (!result) return result;
  *reply.mutable_choices() = result->choices();
  if (reply.choices_size() > 0) reply.mutable_choices(0)->set_text(text);
  *reply.mutable_usage() = result->usage();
  *reply.mutable_timings() = result->timings();
  *reply.mutable_cache() = result->cache();
  return result;
}

bool wants_report(const GenerateOptions& options) {
  return !options.request.report.empty() && options.request.report != "none";
}

void print_report(const v1::GenerateResponse& reply) {
  std::cerr << "\n"
            << report_table({{reply.cache().policy_name(), reply.cache(), reply.usage(), reply.timings()}})
            << layer_bars(reply.cache());
}

int answer_once(Client& client, const GenerateOptions& options, v1::GenerateResponse& reply) {
  v1::GenerateRequest request;
  if (std::string error = build_request(options.request, request); !error.empty()) return usage_error(error);
  if (options.request.cache.preset.empty()) {
    if (const int code = check_presets(client, {&request.cache_policy()}); code != kGood) return code;
  }
  if (options.stream) {
    const auto result = stream_answer(client, request, options.json, reply);
    if (!result) return fail(client, result.error);
    if (!options.json) std::cout << std::endl;
  } else {
    const auto result = client.generate(request);
    if (!result) return fail(client, result.error);
    reply = *result;
    if (options.json) {
      std::cout << to_json(reply, false) << "\n";
    } else if (reply.choices_size() > 0) {
      std::cout << reply.choices(0).text() << "\n";
    }
  }
  return kGood;
}

}  // namespace

int run_generate(Client& client, GenerateOptions options) {
  if (std::string error = assemble_prompt(options); !error.empty()) return usage_error(error);
  const bool print = wants_report(options);
  if (!print && !options.save_reply.empty()) options.request.report = "layers";
  v1::GenerateResponse reply;
  if (const int code = answer_once(client, options, reply); code != kGood) return code;
  if (print && !options.json) print_report(reply);
  if (!options.save_reply.empty()) {
    if (!write_all(options.save_reply, to_json(reply, true) + "\n")) {
      return usage_error(absl::StrCat("--save-reply: cannot write ", options.save_reply));
    }
  }
  return kGood;
}

int run_chat(Client& client, GenerateOptions options) {
  const bool terminal = isatty(STDIN_FILENO);
  if (!options.system.empty()) options.request.chat.emplace_back("system", options.system);
  options.stream = true;
  if (terminal) std::cerr << "One message a line; an empty line or Ctrl-D ends.\n";
  std::string line;
  while (true) {
    if (terminal) std::cerr << "> " << std::flush;
    if (!std::getline(std::cin, line) || line.empty()) return kGood;
    options.request.chat.emplace_back("user", line);
    v1::GenerateResponse reply;
    if (const int code = answer_once(client, options, reply); code != kGood) return code;
    if (wants_report(options) && !options.json) print_report(reply);
    options.request.chat.emplace_back("assistant", reply.choices_size() > 0 ? reply.choices(0).text() : "");
  }
}

int run_tokenize(Client& client, const TokenizeOptions& options) {
  if (!options.ids.empty()) {
    v1::DetokenizeRequest request;
    request.set_model(options.model);
    for (uint32_t id : options.ids) request.add_token_ids(id);
    const auto result = client.detokenize(request);
    if (!result) return fail(client, result.error);
    std::cout << (options.json ? to_json(*result, false) : result->text()) << "\n";
    return kGood;
  }
  v1::TokenizeRequest request;
  request.set_model(options.model);
  std::string text = options.text;
  if (!options.file.empty() && !read_all(options.file, text))
    return usage_error(absl::StrCat("--file: cannot read ", options.file));
  request.set_text(text);
  const auto result = client.tokenize(request);
  if (!result) return fail(client, result.error);
  if (options.json) {
    std::cout << to_json(*result, false) << "\n";
    return kGood;
  }
  for (uint32_t id : result->token_ids()) std::cout << id << "\n";
  std::cerr << result->token_ids_size() << " tokens of at most " << result->max_model_len() << "\n";
  return kGood;
}

int run_models(Client& client, bool json) {
  const auto result = client.list_models();
  if (!result) return fail(client, result.error);
  if (json) {
    std::cout << to_json(*result, false) << "\n";
    return kGood;
  }
  for (const auto& model : result->models()) {
    std::cout << absl::StrFormat(
        "%s: %s, %s, %u layers, %u query heads, %u KV heads of %u, up to %u tokens, %s a cached token, on %s\n",
        model.id(), model.architecture(), model.weights(), model.layers(), model.query_heads(), model.kv_heads(),
        model.head_dim(), model.max_model_len(), human_bytes(static_cast<double>(model.kv_bytes_per_token())),
        model.device());
  }
  return kGood;
}

int run_stats(Client& client, const StatsOptions& options) {
  const auto result = client.get_stats(options.include_requests);
  if (!result) return fail(client, result.error);
  if (options.json) {
    std::cout << to_json(*result, false) << "\n";
    return kGood;
  }
  const v1::Stats& stats = result->stats();
  const v1::MemoryStats& memory = stats.memory();
  std::cout << absl::StrFormat("%s, version %s, up %d s\nrequests: %u running, %u waiting\n", state_word(stats.state()),
                               stats.version(), stats.uptime().seconds(), stats.scheduler().running(),
                               stats.scheduler().waiting());
  std::cout << "cache pool " << human_bytes(memory.kv_pool_bytes()) << ": " << human_bytes(memory.kv_live_bytes())
            << " live, " << human_bytes(memory.kv_free_bytes()) << " free, " << human_bytes(memory.kv_reserved_bytes())
            << " reserved\n"
            << "held " << human_bytes(memory.kv_held_bytes()) << " where full caches would hold "
            << human_bytes(memory.kv_full_equivalent_bytes()) << "; weights " << human_bytes(memory.weights_bytes())
            << "\n";
  for (const auto& policy : stats.policies()) {
    std::cout << absl::StrFormat("%-14s %4u running %8u done  held %-12s saved %s\n", policy.policy(), policy.running(),
                                 policy.requests_total(), human_bytes(policy.held_bytes()),
                                 human_bytes(static_cast<double>(policy.saved_bytes())));
  }
  for (const auto& request : stats.requests()) {
    std::cout << absl::StrFormat("%s  %s  %s  prompt %u  generated %u  held %s\n", printable(request.request_id()),
                                 request.phase(), request.policy(), request.prompt_tokens(), request.generated_tokens(),
                                 human_bytes(request.held_bytes()));
  }
  return kGood;
}

int run_report(const std::vector<std::string>& files, bool layers) {
  std::vector<ReportColumn> columns;
  for (const std::string& file : files) {
    v1::GenerateResponse reply;
    if (std::string error = read_reply(file, reply); !error.empty()) return usage_error(error);
    columns.push_back({reply_title(reply), reply.cache(), reply.usage(), reply.timings()});
  }
  std::cout << report_table(columns);
  if (!layers) return kGood;
  for (const ReportColumn& column : columns) std::cout << "\n" << column.title << "\n" << layer_bars(column.cache);
  return kGood;
}

}  // namespace pkv::client
