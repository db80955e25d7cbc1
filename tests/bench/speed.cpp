// pkv-speed: prefill and decode rates of one request, or of several at once, through the engine, as JSON. One policy a
// process, so that its peak memory is that policy's. Meant to be run in turns with another program; ratios, not
// absolute figures, are comparable.
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>
#include <random>
#include <span>

#include "absl/time/clock.h"
#include "kernels/status_macros.h"
#include "server/engine/engine.h"
#include "server/policy/lane_table.h"
#include "server/policy/registry.h"
#include "tests/support/collecting_sink.h"
#include "tests/support/submit.h"

namespace pkv {
namespace {

struct SpeedOptions {
  std::string model, device = "cpu", lane_table, policy = "full", scope = "prompt", kv_dtype, isa;
  int32_t threads = 0, decode = 48, sequences = 1, page_bytes = 0;
  uint64_t pool_mib = 512, workspace_mib = 1024;
  int64_t budget = 0;
  std::vector<int32_t> prompts{512, 2048, 8000};
  bool fast = false;
};

std::shared_ptr<Request> make_request(int32_t tokens, int32_t vocabulary, const SpeedOptions& options,
                                      const std::shared_ptr<const LaneTable>& lane_table) {
  auto request = std::make_shared<Request>();
  std::mt19937 rng(7);
  std::uniform_int_distribution<TokenId> id(100, std::min(40000, vocabulary - 1));
  for (int32_t i = 0; i < tokens; ++i) request->prompt.push_back(id(rng));
  const PolicyRow& row = *find_policy(options.policy);
  request->policy = {.kind = row.kind,
                     .params = row.defaults,
                     .kv_dtype = row.kv_dtype.value_or(KvDtype::kF16),
                     .lane_table = lane_table};
  if (lane_table == nullptr) request->policy.params.funnel_allocation = FunnelAllocation::kGlobal;
  for (const EntryFormat& format : kEntryFormats.rows) {
    if (format.name == options.kv_dtype) request->policy.kv_dtype = format.id;
  }
  if (options.budget > 0) {
    request->policy.budget = {.kind = BudgetKind::kTokens,
                              .tokens = options.budget,
                              .scope = options.scope == "total" ? BudgetScope::kTotal : BudgetScope::kPrompt};
  }
  request->sampling.max_tokens = options.decode + 1;
  request->sampling.ignore_eos = true;
  return request;
}

// When each token came.
class TimedSink final : public CollectingSink {
 public:
  bool on_token(const TokenLogprob& token) override {
    times_.push_back(absl::Now());
    return CollectingSink::on_token(token);
  }
  const std::vector<absl::Time>& times() const { return times_; }  // only after wait()

 private:
  std::vector<absl::Time> times_;
};

// Tokens a second of all together, while all of them generate.
double decode_rate(std::span<const std::shared_ptr<TimedSink>> sinks) {
  absl::Time begin = absl::InfinitePast(), end = absl::InfiniteFuture();
  for (const std::shared_ptr<TimedSink>& sink : sinks) {
    begin = std::max(begin, sink->times().front());
    end = std::min(end, sink->times().back());
  }
  int64_t tokens = 0;
  for (const std::shared_ptr<TimedSink>& sink : sinks) {
    tokens += std::count_if(sink->times().begin(), sink->times().end(),
                            [&](absl::Time time) { return time > begin && time <= end; });
  }
  return static_cast<double>(tokens) / absl::ToDoubleSeconds(end - begin);
}

// What the limits of a prompt and of a decode step follow from. Of the weights, those that every step reads: an
// embedding that is not the output head is read by the row.
nlohmann::json about(const Model& model, const GgufFile& file, KvDtype dtype) {
  const ModelShape& shape = model.shape();
  const bool own_head = file.find_tensor("output.weight") != nullptr;
  const size_t looked_up = own_head ? file.find_tensor("token_embd.weight")->data.size() : 0;
  return {{"layers", shape.layers},
          {"q_heads", shape.q_heads},
          {"kv_heads", shape.kv_heads},
          {"head_dim", shape.head_dim},
          {"width", shape.width},
          {"feed_forward", shape.feed_forward},
          {"step_weight_bytes", model.weight_bytes() - looked_up},
          {"kv_bytes_per_token", shape.kv_bytes_per_token(dtype)}};
}

absl::Status run(const SpeedOptions& options) {
  if (find_policy(options.policy) == nullptr) return absl::InvalidArgumentError("no policy " + options.policy);
  auto file = GgufFile::open(options.model);
  if (!file.ok()) return file.status();
  std::shared_ptr<const LaneTable> lane_table;
  if (!options.lane_table.empty()) {
    PKV_ASSIGN_OR_RETURN(LaneTable table, read_lane_table(options.lane_table));
    lane_table = std::make_shared<const LaneTable>(std::move(table));
  }
  auto backend =
      make_backend({.device = options.device, .fast = options.fast, .threads = options.threads, .isa = options.isa});
  if (!backend.ok()) return backend.status();
  auto model = load_model(**file, **backend);
  if (!model.ok()) return model.status();
  auto engine = Engine::create(**model, {.pool_bytes = options.pool_mib << 20,
                                         .page_bytes = options.page_bytes,
                                         .workspace_bytes = options.workspace_mib << 20});
  if (!engine.ok()) return engine.status();
  nlohmann::json out{{"backend", (*backend)->description()}, {"policy", options.policy}, {"scope", options.scope}};
  const auto example = make_request(1, (*model)->shape().vocab_size, options, lane_table);
  out["model"] = about(**model, **file, example->policy.kv_dtype);
  for (int32_t tokens : options.prompts) {
    std::vector<std::shared_ptr<TimedSink>> sinks;
    for (int32_t i = 0; i < options.sequences; ++i) {
      sinks.push_back(std::make_shared<TimedSink>());
      PKV_RETURN_IF_ERROR(test::prepare_and_submit(
          **engine, make_request(tokens, (*model)->shape().vocab_size, options, lane_table), sinks.back()));
    }
    for (const std::shared_ptr<TimedSink>& sink : sinks) PKV_RETURN_IF_ERROR(sink->wait());
    const RequestResult& result = sinks.front()->result();
    out["runs"][std::to_string(tokens)] = {
        {"prefill_tokens_per_second", tokens / absl::ToDoubleSeconds(result.timings.prefill)},
        {"decode_tokens_per_second", decode_rate(sinks)},
        {"compress_share_of_prefill", absl::FDivDuration(result.timings.compress, result.timings.prefill)},
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
  app.add_option("--device", options.device, "cpu or cuda:N")->capture_default_str();
  app.add_option("--pool-mib", options.pool_mib, "Cache pool")->capture_default_str();
  app.add_option("--page-bytes", options.page_bytes, "Of a page; 0: the device's choice")->capture_default_str();
  app.add_option("--workspace-mib", options.workspace_mib, "For prompts that are read")->capture_default_str();
  app.add_option("--lane-table", options.lane_table, "The model's lane table, for funnel")->check(CLI::ExistingFile);
  app.add_option("--policy", options.policy, "Cache policy")->capture_default_str();
  app.add_option("--budget", options.budget, "Entries per layer and KV head");
  app.add_option("--scope", options.scope, "What the budget covers")
      ->check(CLI::IsMember({"prompt", "total"}))
      ->capture_default_str();
  std::vector<std::string> formats;
  for (const pkv::EntryFormat& format : pkv::kEntryFormats.rows) formats.emplace_back(format.name);
  app.add_option("--kv-dtype", options.kv_dtype, "Format of the entries; default the policy's")
      ->check(CLI::IsMember(formats));
  app.add_option("--threads", options.threads, "0: one per core");
  app.add_option("--isa", options.isa, "Highest instruction-set path");
  app.add_flag("--fast", options.fast, "As runtime.compute: fast");
  app.add_option("--decode", options.decode, "Tokens to generate")->capture_default_str();
  app.add_option("--sequences", options.sequences, "Requests of each length at once; prefill is the first one's")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  app.add_option("--prompts", options.prompts, "Prompt lengths, tokens")->capture_default_str()->delimiter(',');
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = pkv::run(options);
  if (status.ok()) return 0;
  std::cerr << "pkv-speed: " << status.message() << "\n";
  return 1;
}
