// pkv-quality: what every cache policy costs the answer. Each text is read once per budget, answered greedily with the
// full cache, and every policy is fed that answer over its own cut of the same prompt (Request::compare_with). The
// negative control, streaming_llm without its first tokens, shows that the measure notices what is known to hurt.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "server/engine/engine.h"
#include "server/model/fingerprint.h"
#include "server/policy/lane_table.h"
#include "server/policy/registry.h"
#include "tests/bench/quality_table.h"
#include "tests/bench/texts.h"
#include "tests/support/collecting_sink.h"
#include "tests/support/submit.h"

namespace pkv {
namespace {

constexpr uint64_t kPoolBytes = uint64_t{4} << 30;

struct QualityOptions {
  std::string model, lane_table, scope = "prompt", kv_dtype;
  std::vector<std::string> paths, only, policies, budgets{"64", "128", "256", "512"};
  int32_t threads = 0, max_tokens = 48;
  bool exact = false, json = false, check = false;
};

// Entries per lane ("128") or a share of the prompt ("20%").
absl::StatusOr<Budget> budget_of(absl::string_view text, BudgetScope scope) {
  Budget budget{.scope = scope};
  double percent = 0;
  if (absl::SimpleAtoi(text, &budget.tokens)) {
    budget.kind = BudgetKind::kTokens;
    return budget;
  }
  if (!absl::ConsumeSuffix(&text, "%") || !absl::SimpleAtod(text, &percent)) {
    return absl::InvalidArgumentError(absl::StrCat("--budgets: neither entries nor a share: ", text));
  }
  if (!(percent > 0 && percent <= 100)) {
    return absl::InvalidArgumentError(absl::StrCat("--budgets: a share is above 0 and at most 100 %: ", text, "%"));
  }
  budget.kind = BudgetKind::kKeepRatio;
  budget.keep_ratio_millionths = to_millionths(percent / 100);
  return budget;
}

// The policies to compare: those asked for, funnel GLOBAL where there is no table, and the two sides of the negative
// control at the end.
std::vector<PolicySpec> specs_of(const std::vector<const PolicyRow*>& policies, const Budget& budget, KvDtype dtype,
                                 const std::shared_ptr<const LaneTable>& lane_table) {
  std::vector<PolicySpec> specs;
  for (const PolicyRow* row : policies) {
    specs.push_back(
        {.kind = row->kind, .params = row->defaults, .budget = budget, .kv_dtype = dtype, .lane_table = lane_table});
    if (lane_table == nullptr) specs.back().params.funnel_allocation = FunnelAllocation::kGlobal;
  }
  for (const int32_t sinks : {4, 0}) {
    PolicySpec spec{.kind = PolicyKind::kStreamingLlm, .budget = budget, .kv_dtype = dtype};
    spec.params.sink_tokens = sinks;
    specs.push_back(spec);
  }
  return specs;
}

absl::StatusOr<std::vector<const PolicyRow*>> policies_of(const QualityOptions& options) {
  std::vector<const PolicyRow*> policies;
  for (const PolicyRow& row : policy_table()) {
    if (options.policies.empty() && row.takes_budget) policies.push_back(&row);
  }
  for (const std::string& name : options.policies) {
    const PolicyRow* row = find_policy(name);
    if (row == nullptr || !row->takes_budget) return absl::InvalidArgumentError("no policy with a budget: " + name);
    policies.push_back(row);
  }
  return policies;
}

absl::StatusOr<std::vector<Text>> texts_of(const QualityOptions& options, const GgufFile& file) {
  auto texts = read_texts(options.paths, file);
  if (!texts.ok() || options.only.empty()) return texts;
  std::vector<Text> chosen;
  for (const std::string& name : options.only) {
    const auto text = std::find_if(texts->begin(), texts->end(), [&](const Text& one) { return one.name == name; });
    if (text == texts->end()) return absl::NotFoundError("--only: no text " + name);
    chosen.push_back(*text);
  }
  return chosen;
}

class QualityRun {
 public:
  static absl::StatusOr<std::unique_ptr<QualityRun>> create(const QualityOptions& options) {
    auto run = std::unique_ptr<QualityRun>(new QualityRun(options));
    if (absl::Status status = run->load(); !status.ok()) return status;
    return run;
  }

  // Every policy at `budget` on every text.
  absl::Status measure(const std::string& budget);
  std::vector<QualityRow> rows;  // means over the texts
  std::vector<NegativeControl> controls;

 private:
  explicit QualityRun(const QualityOptions& options) : options_(options) {}
  absl::Status load();
  QualityRow row_of(size_t spec, const std::string& budget, const QualityFigures& figures) const;
  absl::StatusOr<std::vector<QualityFigures>> compare(const Text& text, std::vector<PolicySpec> specs) const;

  const QualityOptions& options_;
  std::unique_ptr<GgufFile> file_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<Engine> engine_;
  std::vector<const PolicyRow*> policies_;
  std::vector<Text> texts_;
  std::shared_ptr<const LaneTable> lane_table_;
  KvDtype kv_dtype_ = KvDtype::kF16;
};

absl::Status QualityRun::load() {
  auto file = GgufFile::open(options_.model);
  if (!file.ok()) return file.status();
  file_ = *std::move(file);
  auto backend = make_backend({.device = "cpu", .exact = options_.exact, .threads = options_.threads});
  if (!backend.ok()) return backend.status();
  backend_ = *std::move(backend);
  auto model = load_model(*file_, *backend_);
  if (!model.ok()) return model.status();
  model_ = *std::move(model);
  auto engine = Engine::create(*model_, {.pool_bytes = kPoolBytes});
  if (!engine.ok()) return engine.status();
  engine_ = *std::move(engine);
  auto policies = policies_of(options_);
  if (!policies.ok()) return policies.status();
  policies_ = *std::move(policies);
  if (!options_.lane_table.empty()) {
    auto table = read_lane_table(options_.lane_table);
    if (!table.ok()) return table.status();
    if (table->model != model_fingerprint(*file_)) {
      return absl::InvalidArgumentError("--lane-table: was made for another model");
    }
    lane_table_ = std::make_shared<const LaneTable>(*std::move(table));
  }
  auto texts = texts_of(options_, *file_);
  if (!texts.ok()) return texts.status();
  texts_ = *std::move(texts);
  if (options_.exact) kv_dtype_ = KvDtype::kF32;
  if (!options_.kv_dtype.empty()) {
    const auto row = std::find_if(std::begin(kEntryFormats.rows), std::end(kEntryFormats.rows),
                                  [&](const EntryFormat& format) { return format.name == options_.kv_dtype; });
    if (row == std::end(kEntryFormats.rows)) return absl::NotFoundError("--kv-dtype: no format " + options_.kv_dtype);
    kv_dtype_ = row->id;
  }
  std::cerr << backend_->description() << "\n";
  return absl::OkStatus();
}

absl::StatusOr<std::vector<QualityFigures>> QualityRun::compare(const Text& text, std::vector<PolicySpec> specs) const {
  auto request = std::make_shared<Request>();
  request->id = text.name;
  request->prompt = text.ids;
  request->policy.kv_dtype = prompt_format(specs.front().kv_dtype);
  request->sampling.max_tokens = options_.max_tokens;
  request->sampling.ignore_eos = true;
  request->compare_with = std::move(specs);
  auto sink = std::make_shared<CollectingSink>();
  if (absl::Status status = test::prepare_and_submit(*engine_, request, sink); !status.ok()) return status;
  if (absl::Status status = sink->wait(); !status.ok()) return status;
  std::vector<QualityFigures> figures;
  const int32_t lanes = model_->shape().layers * model_->shape().kv_heads;
  for (const PolicyComparison& comparison : sink->result().comparisons) {
    figures.push_back(figures_of(comparison, static_cast<int32_t>(text.ids.size()), lanes));
  }
  return figures;
}

QualityRow QualityRun::row_of(size_t spec, const std::string& budget, const QualityFigures& figures) const {
  if (spec < policies_.size()) {
    return {std::string(policies_[spec]->name), policies_[spec]->observes_attention, budget, figures};
  }
  return {spec == policies_.size() ? "control, sink_tokens 4" : "control, sink_tokens 0", false, budget, figures};
}

absl::Status QualityRun::measure(const std::string& budget) {
  const auto parsed = budget_of(budget, options_.scope == "total" ? BudgetScope::kTotal : BudgetScope::kPrompt);
  if (!parsed.ok()) return parsed.status();
  const auto specs = specs_of(policies_, *parsed, kv_dtype_, lane_table_);
  std::vector<QualityFigures> means(specs.size());
  for (const Text& text : texts_) {
    std::cerr << text.name << ", " << text.ids.size() << " tokens, budget " << budget << std::endl;
    const auto figures = compare(text, specs);
    if (!figures.ok()) return figures.status();
    for (size_t i = 0; i < specs.size(); ++i) {
      means[i].add((*figures)[i], 1.0 / static_cast<double>(texts_.size()));
      if (options_.json) std::cout << to_json(row_of(i, budget, (*figures)[i]), text.name) << std::endl;
    }
  }
  for (size_t i = 0; i < policies_.size(); ++i) {
    rows.push_back(row_of(i, budget, means[i]));
  }
  const QualityFigures &with = means[specs.size() - 2], &without = means[specs.size() - 1];
  controls.push_back({budget, with.kl_mean, without.kl_mean, with.top1_agreement, without.top1_agreement});
  return absl::OkStatus();
}

absl::StatusOr<int> run(const QualityOptions& options) {
  auto run = QualityRun::create(options);
  if (!run.ok()) return run.status();
  for (const std::string& budget : options.budgets) {
    if (absl::Status status = (*run)->measure(budget); !status.ok()) return status;
  }
  if (options.json) {
    for (const QualityRow& row : (*run)->rows) std::cout << to_json(row, "mean") << "\n";
    for (const NegativeControl& control : (*run)->controls) std::cout << to_json(control) << std::endl;
  } else {
    print_table((*run)->rows);
    print_table((*run)->controls);
  }
  const std::vector<std::string> violations = quality_violations((*run)->rows, (*run)->controls);
  for (const std::string& violation : violations) std::cerr << violation << "\n";
  return options.check && !violations.empty() ? 1 : 0;
}

}  // namespace
}  // namespace pkv

int main(int argc, char** argv) {
  pkv::QualityOptions options;
  CLI::App app("KL, agreement and recall of every cache policy against the full cache, over given texts");
  app.add_option("--model", options.model, "GGUF file")->envname("PKV_MODEL")->required();
  app.add_option("--policies", options.policies, "Default: all")->delimiter(',')->allow_extra_args(false);
  app.add_option("--lane-table", options.lane_table, "The model's lane table, for funnel; GLOBAL without it")
      ->check(CLI::ExistingFile);
  app.add_option("--budgets", options.budgets, "Entries per layer and KV head, or a share of the prompt (20%)")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->capture_default_str();
  app.add_option("--scope", options.scope)->check(CLI::IsMember({"prompt", "total"}))->capture_default_str();
  app.add_option("--only", options.only, "Of the texts only these, by name")->delimiter(',')->allow_extra_args(false);
  app.add_option("--max-tokens", options.max_tokens, "Length of the answers")
      ->check(CLI::Range(2, 4096))
      ->capture_default_str();
  app.add_option("--threads", options.threads, "0: one per core");
  app.add_option("--kv-dtype", options.kv_dtype,
                 "Entries of the policies; the full cache has those their prompt is read with");
  app.add_flag("--exact", options.exact, "Every product in float32, float32 cache entries");
  app.add_flag("--json", options.json, "One JSON object a line, every text by itself too");
  app.add_flag("--check", options.check,
               "Exit code 1 where a smaller budget is no worse, or the control does not hurt");
  app.add_option("texts", options.paths, "Text files, or .json files {name: [token ids]}")->required();
  CLI11_PARSE(app, argc, argv);
  const absl::StatusOr<int> code = pkv::run(options);
  if (code.ok()) return *code;
  std::cerr << "pkv-quality: " << code.status().message() << "\n";
  return 1;
}
