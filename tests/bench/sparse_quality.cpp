// pkv-sparse: what a sparse prefill saves and what it costs. Reads every text dense and by patterns of several sizes,
// and prints the share of attention that was computed, the share that measured rows lost, mean KL(dense || sparse) in
// nats over all positions (of the 20 best tokens, the rest as one: a lower bound), the agreement of the best token, the
// mean log-probability that the text's own tokens lost, which share of what a policy keeps is the same, and the two
// times.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <iostream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>

#include "absl/strings/str_format.h"
#include "kernels/status_macros.h"
#include "server/engine/engine.h"
#include "server/policy/registry.h"
#include "tests/bench/texts.h"
#include "tests/support/collecting_sink.h"
#include "tests/support/submit.h"

namespace pkv {
namespace {

struct SparseOptions {
  std::string model, policy = "pyramidkv";
  std::vector<std::string> paths;
  std::vector<int32_t> sizes{512, 1024, 2048, 4096};
  int32_t threads = 0, budget = 128, most_tokens = 0;
  bool json = false, without_logprobs = false;
};

PolicySpec spec_of(const SparseOptions& options, int32_t prefill_tokens) {
  const PolicyRow& row = *find_policy(options.policy);
  PolicySpec spec{
      .kind = row.kind, .params = row.defaults, .budget = {.kind = BudgetKind::kTokens, .tokens = options.budget}};
  spec.params.funnel_allocation = FunnelAllocation::kGlobal;
  if (prefill_tokens > 0) {
    spec.prefill = PrefillAttention::kVerticalSlash;
    spec.prefill_tokens = prefill_tokens;
  }
  return spec;
}

absl::StatusOr<std::shared_ptr<CollectingSink>> read(Engine& engine, const Text& text, const SparseOptions& options,
                                                     int32_t prefill_tokens) {
  auto request = std::make_shared<Request>();
  request->prompt = text.ids;
  request->policy = spec_of(options, prefill_tokens);
  request->sampling.max_tokens = 1;
  request->record_positions = true;
  request->prompt_logprobs = !options.without_logprobs;
  request->top_logprobs = options.without_logprobs ? 0 : kMaxTopLogprobs;
  auto sink = std::make_shared<CollectingSink>();
  PKV_RETURN_IF_ERROR(test::prepare_and_submit(engine, request, sink));
  PKV_RETURN_IF_ERROR(sink->wait());
  return sink;
}

// KL of two distributions of which the best tokens are known, and nothing of the others but their sum.
double known_kl(const TokenLogprob& dense, const TokenLogprob& sparse) {
  std::map<TokenId, float> other(sparse.top.begin(), sparse.top.end());
  double kl = 0, rest = 1, other_rest = 1;
  for (const auto& [id, logprob] : dense.top) {
    const auto found = other.find(id);
    if (found == other.end()) continue;  // a part of both rests
    const double p = std::exp(logprob);
    kl += p * (logprob - found->second);
    rest -= p;
    other_rest -= std::exp(found->second);
  }
  if (rest > 1e-9 && other_rest > 1e-9) kl += rest * std::log(rest / other_rest);
  return kl;
}

double kept_overlap(const std::vector<LayerOutcome>& dense, const std::vector<LayerOutcome>& sparse) {
  int64_t kept = 0, shared = 0;
  for (size_t layer = 0; layer < dense.size(); ++layer) {
    for (size_t head = 0; head < dense[layer].kept_positions.size(); ++head) {
      const std::vector<int32_t>&a = dense[layer].kept_positions[head], &b = sparse[layer].kept_positions[head];
      std::vector<int32_t> both;
      std::set_intersection(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(both));
      kept += static_cast<int64_t>(a.size());
      shared += static_cast<int64_t>(both.size());
    }
  }
  return kept == 0 ? 1 : static_cast<double>(shared) / static_cast<double>(kept);
}

nlohmann::json compare(const Text& text, int32_t size, const CollectingSink& dense, const CollectingSink& sparse) {
  const PrefillReport report = sparse.result().cache.prefill.value_or(PrefillReport{});
  const auto seconds = [](const CollectingSink& sink) { return absl::ToDoubleSeconds(sink.result().timings.prefill); };
  double kl = 0, lost_logprob = 0;
  int64_t same_best = 0, positions = 0;
  for (size_t i = 1; i < dense.prompt().size(); ++i) {
    const TokenLogprob &a = dense.prompt()[i], &b = sparse.prompt()[i];
    kl += known_kl(a, b);
    lost_logprob += double(a.logprob) - b.logprob;
    same_best += a.top[0].first == b.top[0].first;
    ++positions;
  }
  const double count = static_cast<double>(std::max<int64_t>(positions, 1));
  return {{"text", text.name},
          {"tokens", text.ids.size()},
          {"prefill_tokens", size},
          {"attended_share", report.attended_share},
          {"lost_mean", report.lost_mean},
          {"lost_max", report.lost_max},
          {"mean_kl", kl / count},
          {"top1_agreement", static_cast<double>(same_best) / count},
          {"lost_logprob", lost_logprob / count},
          {"kept_overlap", kept_overlap(dense.result().cache.layers, sparse.result().cache.layers)},
          {"dense_seconds", seconds(dense)},
          {"sparse_seconds", seconds(sparse)}};
}

void print(const nlohmann::json& row, bool json) {
  if (json) {
    std::cout << row << std::endl;
    return;
  }
  const auto number = [&](const char* key) { return row[key].get<double>(); };
  std::cout
      << absl::StrFormat(
             "%-16s n %5d  size %5d  computed %5.1f %%  lost %.2f %% (most %.1f %%)  KL %.4f  top-1 %.1f %%  log p "
             "%+.4f  kept alike %.1f %%  %.2f s instead of %.2f s\n",
             row["text"].get<std::string>(), row["tokens"].get<int64_t>(), row["prefill_tokens"].get<int32_t>(),
             100 * number("attended_share"), 100 * number("lost_mean"), 100 * number("lost_max"), number("mean_kl"),
             100 * number("top1_agreement"), -number("lost_logprob"), 100 * number("kept_overlap"),
             number("sparse_seconds"), number("dense_seconds"))
      << std::flush;
}

absl::Status run(const SparseOptions& options) {
  if (find_policy(options.policy) == nullptr) return absl::NotFoundError("--policy: no policy " + options.policy);
  auto file = GgufFile::open(options.model);
  if (!file.ok()) return file.status();
  PKV_ASSIGN_OR_RETURN(std::vector<Text> texts, read_texts(options.paths, **file));
  PKV_ASSIGN_OR_RETURN(const auto backend, make_backend({.device = "cpu", .threads = options.threads}));
  PKV_ASSIGN_OR_RETURN(const auto model, load_model(**file, *backend));
  PKV_ASSIGN_OR_RETURN(const auto engine,
                       Engine::create(*model, {.pool_bytes = uint64_t{4} << 30, .workspace_bytes = uint64_t{4} << 30}));
  for (Text& text : texts) {
    if (options.most_tokens > 0 && text.ids.size() > static_cast<size_t>(options.most_tokens)) {
      text.ids.resize(static_cast<size_t>(options.most_tokens));
    }
    PKV_ASSIGN_OR_RETURN(const auto dense, read(*engine, text, options, 0));
    for (const int32_t size : options.sizes) {
      PKV_ASSIGN_OR_RETURN(const auto sparse, read(*engine, text, options, size));
      print(compare(text, size, *dense, *sparse), options.json);
    }
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace pkv

int main(int argc, char** argv) {
  pkv::SparseOptions options;
  CLI::App app("What a sparse prefill saves and costs, against the dense one of the same texts");
  app.add_option("--model", options.model, "GGUF file")->envname("PKV_MODEL")->required();
  app.add_option("texts", options.paths, "Texts, or .json of {name: [token ids]}")->required();
  app.add_option("--sizes", options.sizes, "prefill_tokens to try")->delimiter(',')->capture_default_str();
  app.add_option("--policy", options.policy, "What keeps entries of the two")->capture_default_str();
  app.add_option("--budget", options.budget, "Entries that it keeps")->capture_default_str();
  app.add_option("--threads", options.threads, "0: one per core")->capture_default_str();
  app.add_option("--most-tokens", options.most_tokens, "Of a text, the first so many; 0: all");
  app.add_flag("--without-logprobs", options.without_logprobs, "Times and attention alone");
  app.add_flag("--json", options.json, "One JSON object per line");
  CLI11_PARSE(app, argc, argv);
  if (const absl::Status status = pkv::run(options); !status.ok()) {
    std::cerr << status.message() << "\n";
    return 1;
  }
  return 0;
}
