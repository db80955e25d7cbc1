// pkv-fidelity: how far a device's default or fast mode is from its exact mode (every product in float32, float32 cache
// entries). Prints mean KL(exact || default) in nats and top-1 agreement over every position of given texts, read as a
// prompt; over the last positions once more, read token by token, since decoding uses other kernels; and what policies
// keep of each text in the two modes: as many entries in every lane, or it ends with 1, and which share of them is the
// same.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "absl/strings/str_format.h"
#include "server/engine/engine.h"
#include "server/policy/registry.h"
#include "tests/bench/texts.h"
#include "tests/support/collecting_sink.h"
#include "tests/support/prompt_run.h"
#include "tests/support/submit.h"

namespace pkv {
namespace {

struct Agreement {
  double kl_sum = 0;
  int64_t same_best = 0, positions = 0;

  void add(std::span<const float> exact, std::span<const float> fast) {
    const size_t best_exact = std::max_element(exact.begin(), exact.end()) - exact.begin();
    const size_t best_fast = std::max_element(fast.begin(), fast.end()) - fast.begin();
    double sum_exact = 0, sum_fast = 0, cross = 0;
    for (size_t i = 0; i < exact.size(); ++i) {
      const double e = std::exp(double(exact[i]) - exact[best_exact]);
      sum_exact += e;
      sum_fast += std::exp(double(fast[i]) - fast[best_fast]);
      cross += e * ((double(exact[i]) - exact[best_exact]) - (double(fast[i]) - fast[best_fast]));
    }
    kl_sum += cross / sum_exact - std::log(sum_exact) + std::log(sum_fast);
    same_best += best_exact == best_fast;
    ++positions;
  }
  nlohmann::json report(const std::string& text, const char* phase) const {
    return {{"text", text},
            {"phase", phase},
            {"positions", positions},
            {"mean_kl", kl_sum / positions},
            {"top1_agreement", double(same_best) / positions}};
  }
};

struct Mode {
  std::unique_ptr<Backend> backend;
  std::unique_ptr<Model> model;
  KvDtype dtype = KvDtype::kF16;
};

absl::StatusOr<Mode> load_mode(const GgufFile& file, const BackendOptions& options) {
  auto backend = make_backend(options);
  if (!backend.ok()) return backend.status();
  auto model = load_model(file, **backend);
  if (!model.ok()) return model.status();
  return Mode{*std::move(backend), *std::move(model), options.exact ? KvDtype::kF32 : KvDtype::kF16};
}

absl::StatusOr<std::unique_ptr<PromptRun>> start(const Mode& mode, std::span<const int32_t> prompt, size_t more) {
  auto run = PromptRun::create(*mode.model, mode.dtype, static_cast<int32_t>(prompt.size() + more));
  if (!run.ok()) return run.status();
  if (absl::Status status = (*run)->prefill(prompt); !status.ok()) return status;
  return run;
}

absl::StatusOr<Agreement> compare_prompt(const Mode& exact, const Mode& fast, std::span<const int32_t> ids) {
  auto a = start(exact, ids, 0), b = start(fast, ids, 0);
  if (!a.ok()) return a.status();
  if (!b.ok()) return b.status();
  Agreement agreement;
  const size_t vocab = exact.model->shape().vocab_size;
  const int32_t rows = static_cast<int32_t>(ids.size());
  for (int32_t row = 0; row < rows; row += PromptRun::kLogitRows) {
    const int32_t count = std::min(PromptRun::kLogitRows, rows - row);
    const std::vector<float> x = (*a)->prompt_logits(row, count), y = (*b)->prompt_logits(row, count);
    for (int32_t i = 0; i < count; ++i) {
      agreement.add(std::span(x).subspan(i * vocab, vocab), std::span(y).subspan(i * vocab, vocab));
    }
  }
  return agreement;
}

absl::StatusOr<Agreement> compare_decode(const Mode& exact, const Mode& fast, std::span<const int32_t> ids,
                                         size_t tokens) {
  const auto prompt = ids.first(ids.size() - tokens);
  auto a = start(exact, prompt, tokens), b = start(fast, prompt, tokens);
  if (!a.ok()) return a.status();
  if (!b.ok()) return b.status();
  Agreement agreement;
  for (int32_t id : ids.last(tokens)) {
    auto x = (*a)->decode(id), y = (*b)->decode(id);
    if (!x.ok()) return x.status();
    if (!y.ok()) return y.status();
    agreement.add(*x, *y);
  }
  return agreement;
}

// ---- selections

// What the policy keeps of the prompt: positions by layer and KV head.
absl::StatusOr<std::vector<LayerOutcome>> select(const Mode& mode, const PolicyRow& policy, const Text& text,
                                                 int32_t budget) {
  const ModelShape& shape = mode.model->shape();
  const uint64_t pool = 2 * shape.kv_bytes_per_token(mode.dtype) * (text.ids.size() + 256);
  auto engine = Engine::create(*mode.model, {.pool_bytes = pool});
  if (!engine.ok()) return engine.status();
  auto request = std::make_shared<Request>();
  request->prompt = text.ids;
  request->policy = {.kind = policy.kind,
                     .params = policy.defaults,
                     .budget = {.kind = BudgetKind::kTokens, .tokens = budget},
                     .kv_dtype = mode.dtype};
  request->sampling.max_tokens = 0;
  request->record_positions = true;
  auto sink = std::make_shared<CollectingSink>();
  if (absl::Status status = test::prepare_and_submit(**engine, request, sink); !status.ok()) return status;
  if (absl::Status status = sink->wait(); !status.ok()) return status;
  return sink->result().cache.layers;
}

struct Overlap {
  int64_t lanes = 0, other_counts = 0, identical = 0, kept = 0, shared = 0;

  void add(std::span<const int32_t> exact, std::span<const int32_t> fast) {
    std::vector<int32_t> both;
    std::set_intersection(exact.begin(), exact.end(), fast.begin(), fast.end(), std::back_inserter(both));
    ++lanes;
    other_counts += exact.size() != fast.size();
    identical += both.size() == exact.size() && both.size() == fast.size();
    kept += static_cast<int64_t>(exact.size());
    shared += static_cast<int64_t>(both.size());
  }
  nlohmann::json report(const std::string& text, const PolicyRow& policy, int32_t budget) const {
    return {{"text", text},
            {"policy", policy.name},
            {"budget", budget},
            {"lanes", lanes},
            {"lanes_with_other_counts", other_counts},
            {"identical_lanes", identical},
            {"overlap", kept == 0 ? 1 : double(shared) / double(kept)}};
  }
};

absl::StatusOr<Overlap> compare_selection(const Mode& exact, const Mode& fast, const PolicyRow& policy,
                                          const Text& text, int32_t budget) {
  const auto a = select(exact, policy, text, budget), b = select(fast, policy, text, budget);
  if (!a.ok()) return a.status();
  if (!b.ok()) return b.status();
  Overlap overlap;
  for (size_t layer = 0; layer < a->size(); ++layer) {
    for (size_t head = 0; head < (*a)[layer].kept_positions.size(); ++head) {
      overlap.add((*a)[layer].kept_positions[head], (*b)[layer].kept_positions[head]);
    }
  }
  return overlap;
}

absl::StatusOr<std::vector<const PolicyRow*>> rows_of(const std::vector<std::string>& names) {
  std::vector<const PolicyRow*> rows;
  for (const std::string& name : names) {
    const PolicyRow* row = find_policy(name);
    if (row == nullptr || !row->takes_budget)
      return absl::InvalidArgumentError("--policies: none with a budget: " + name);
    rows.push_back(row);
  }
  return rows;
}

void print(const nlohmann::json& row, bool json) {
  if (json) {
    std::cout << row << std::endl;
    return;
  }
  if (row.contains("policy")) {
    std::cout << absl::StrFormat(
                     "%-28s %-14s B = %-5d lanes %4d, of them with other counts %d, identical %d; overlap %.2f %%\n",
                     row["text"].get<std::string>(), row["policy"].get<std::string>(), row["budget"].get<int32_t>(),
                     row["lanes"].get<int64_t>(), row["lanes_with_other_counts"].get<int64_t>(),
                     row["identical_lanes"].get<int64_t>(), 100 * row["overlap"].get<double>())
              << std::flush;
    return;
  }
  std::cout << absl::StrFormat("%-28s %-8s positions %5d  mean KL %.6f  top-1 agreement %.2f %%\n",
                               row["text"].get<std::string>(), row["phase"].get<std::string>(),
                               row["positions"].get<int64_t>(), row["mean_kl"].get<double>(),
                               100 * row["top1_agreement"].get<double>())
            << std::flush;
}

struct FidelityOptions {
  std::string model, device = "cpu", isa;
  std::vector<std::string> paths, policies;
  size_t decode = 64;
  int32_t budget = 64;
  bool fast = false, json = false;
};

absl::Status run(const FidelityOptions& options) {
  auto file = GgufFile::open(options.model);
  if (!file.ok()) return file.status();
  auto texts = read_texts(options.paths, **file);
  if (!texts.ok()) return texts.status();
  auto policies = rows_of(options.policies);
  if (!policies.ok()) return policies.status();
  auto exact = load_mode(**file, {.device = options.device, .exact = true}),
       fast = load_mode(**file, {.device = options.device, .fast = options.fast, .isa = options.isa});
  if (!exact.ok()) return exact.status();
  if (!fast.ok()) return fast.status();
  std::cerr << (options.fast ? "fast mode: " : "default mode: ") << fast->backend->description() << "\n";
  int64_t other_counts = 0;
  for (const Text& text : *texts) {
    auto prompt = compare_prompt(*exact, *fast, text.ids);
    if (!prompt.ok()) return prompt.status();
    print(prompt->report(text.name, "prefill"), options.json);
    const size_t tokens = std::min(options.decode, text.ids.size() - 1);
    if (tokens > 0) {
      auto stepped = compare_decode(*exact, *fast, text.ids, tokens);
      if (!stepped.ok()) return stepped.status();
      print(stepped->report(text.name, "decode"), options.json);
    }
    for (const PolicyRow* policy : *policies) {
      auto overlap = compare_selection(*exact, *fast, *policy, text, options.budget);
      if (!overlap.ok()) return overlap.status();
      print(overlap->report(text.name, *policy, options.budget), options.json);
      other_counts += overlap->other_counts;
    }
  }
  for (const Mode* mode : {&*exact, &*fast}) {
    if (absl::Status status = mode->backend->status(); !status.ok()) return status;
  }
  if (other_counts == 0) return absl::OkStatus();
  return absl::InternalError(absl::StrFormat("%d lanes keep another number of entries in the two modes", other_counts));
}

}  // namespace
}  // namespace pkv

int main(int argc, char** argv) {
  CLI::App app("How far a device's default mode is from its exact mode: KL, best tokens, what policies keep");
  pkv::FidelityOptions options;
  app.add_option("--model", options.model, "GGUF file")->envname("PKV_MODEL")->required();
  app.add_option("--device", options.device, "cpu or cuda:N")->capture_default_str();
  app.add_flag("--fast", options.fast, "Of the fast mode (runtime.compute) instead of the default one");
  app.add_option("--isa", options.isa, "Highest instruction-set path of the default mode; cpu only");
  app.add_option("--decode", options.decode, "Also read the last so many tokens one by one")->capture_default_str();
  app.add_option("--policies", options.policies, "Compare what these keep, comma-separated")->delimiter(',');
  app.add_option("--budget", options.budget, "Their entries per KV head")->capture_default_str();
  app.add_flag("--json", options.json, "One JSON object a line");
  app.add_option("texts", options.paths, "Text files, or .json files {name: [token ids]}")->required();
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = pkv::run(options);
  if (status.ok()) return 0;
  std::cerr << "pkv-fidelity: " << status.message() << "\n";
  return 1;
}
