// Runs commands against a server and prints what comes back.
#include "client/cli/commands.h"

#include <iostream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cli/command_support.h"
#include "client/report_table.h"
#include "client/stats_view.h"

namespace pkv::client {
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
    return usage_error(absl::StrCat("--file: ", cannot_read(options.file)));
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
            << "; workspace " << human_bytes(memory.workspace_bytes()) << "\n";
  // None while the model is loaded.
  if (const auto models = client.list_models()) {
    for (const auto& model : models->models()) std::cout << "computes on " << model.device() << "\n";
  }
  if (memory.has_device()) std::cout << device_memory_line(memory.device()) << "\n";
  for (const auto& policy : stats.policies()) {
    std::cout << absl::StrFormat(
        "%-14s %4u running %8u done  held %-12s saved %s\n", policy.policy(), policy.running(), policy.requests_total(),
        human_bytes(policy.held_bytes()),
        saved_size(static_cast<double>(policy.saved_bytes()), static_cast<double>(policy.full_equivalent_bytes())));
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
    if (!reply.has_cache())
      return usage_error(absl::StrCat(file, " is a reply without a cache report (--report none)"));
    columns.push_back({reply_title(reply), reply.cache(), reply.usage(), reply.timings()});
  }
  std::cout << report_table(columns);
  if (!layers) return kGood;
  for (const ReportColumn& column : columns) std::cout << "\n" << column.title << "\n" << layer_bars(column.cache);
  return kGood;
}

}  // namespace pkv::client
