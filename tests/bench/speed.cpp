// pkv-speed: prefill and decode rates of one request through the engine, as JSON. One policy a process, so that its
// peak memory is that policy's. Meant to be run in turns with another program; ratios, not absolute figures, are
// comparable.
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <nlohmann/json.hpp>
#include <random>

#include "server/engine/engine.h"
#include "server/policy/registry.h"
#include "tests/support/collecting_sink.h"
#include "tests/support/submit.h"

namespace pkv {
namespace {

struct SpeedOptions {
  std::string model, policy = "full", scope = "prompt", isa;
  int32_t threads = 0, decode = 48;
  int64_t budget = 0;
  std::vector<int32_t> prompts{512, 2048, 8000};
};

std::shared_ptr<Request> make_request(int32_t tokens, const SpeedOptions& options) {
  auto request = std::make_shared<Request>();
  std::mt19937 rng(7);
  std::uniform_int_distribution<TokenId> id(100, 40000);
  for (int32_t i = 0; i < tokens; ++i) request->prompt.push_back(id(rng));
  request->policy.kind = find_policy(options.policy)->kind;
  if (options.budget > 0) {
    request->policy.budget = {.kind = BudgetKind::kTokens,
                              .tokens = options.budget,
                              .scope = options.scope == "total" ? BudgetScope::kTotal : BudgetScope::kPrompt};
  }
  request->sampling.max_tokens = options.decode + 1;
  request->sampling.ignore_eos = true;
  return request;
}

absl::Status run(const SpeedOptions& options) {
  if (find_policy(options.policy) == nullptr) return absl::InvalidArgumentError("no policy " + options.policy);
  auto file = GgufFile::open(options.model);
  if (!file.ok()) return file.status();
  auto backend = make_backend({.device = "cpu", .threads = options.threads, .isa = options.isa});
  if (!backend.ok()) return backend.status();
  auto model = load_model(**file, **backend);
  if (!model.ok()) return model.status();
  auto engine = Engine::create(**model, {});
  if (!engine.ok()) return engine.status();
  nlohmann::json out{{"backend", (*backend)->description()}, {"policy", options.policy}, {"scope", options.scope}};
  for (int32_t tokens : options.prompts) {
    auto sink = std::make_shared<CollectingSink>();
    if (absl::Status status = test::prepare_and_submit(**engine, make_request(tokens, options), sink); !status.ok())
      return status;
    if (absl::Status status = sink->wait(); !status.ok()) return status;
    const RequestResult& result = sink->result();
    out["runs"][std::to_string(tokens)] = {
        {"prefill_tokens_per_second", tokens / absl::ToDoubleSeconds(result.timings.prefill)},
        {"decode_tokens_per_second", options.decode / absl::ToDoubleSeconds(result.timings.decode)},
        {"compress_share_of_prefill", result.timings.compress / result.timings.prefill},
        {"peak_cache_bytes", result.cache.bytes.peak}};
  }
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  out["peak_resident_bytes"] = int64_t{1024} * usage.ru_maxrss;
  std::cout << out << std::endl;
  return absl::OkStatus();
}

}  // namespace
}  // namespace pkv

int main(int argc, char** argv) {
  pkv::SpeedOptions options;
  CLI::App app("Prefill and decode rates of one request, as JSON");
  app.add_option("--model", options.model, "GGUF file")->envname("PKV_MODEL")->required();
  app.add_option("--policy", options.policy, "Cache policy")->capture_default_str();
  app.add_option("--budget", options.budget, "Entries per layer and KV head");
  app.add_option("--scope", options.scope, "What the budget covers")
      ->check(CLI::IsMember({"prompt", "total"}))
      ->capture_default_str();
  app.add_option("--threads", options.threads, "0: one per core");
  app.add_option("--isa", options.isa, "Highest instruction-set path");
  app.add_option("--decode", options.decode, "Tokens to generate")->capture_default_str();
  app.add_option("--prompts", options.prompts, "Prompt lengths, tokens")->capture_default_str()->delimiter(',');
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = pkv::run(options);
  if (status.ok()) return 0;
  std::cerr << "pkv-speed: " << status.message() << "\n";
  return 1;
}
