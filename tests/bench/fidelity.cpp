// pkv-fidelity: how far the default mode's answers are from exact mode's (every product in float32, float32 cache
// entries). Prints mean KL(exact || default) in nats and top-1 agreement over every position of given texts, read as a
// prompt; and over the last positions once more, read token by token, since decoding uses other kernels.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <iostream>
#include <nlohmann/json.hpp>

#include "absl/strings/str_format.h"
#include "tests/bench/texts.h"
#include "tests/support/prompt_run.h"

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

absl::StatusOr<Mode> load_mode(const GgufFile& file, bool exact, const std::string& isa) {
  auto backend = make_backend({.device = "cpu", .exact = exact, .isa = isa});
  if (!backend.ok()) return backend.status();
  auto model = load_model(file, **backend);
  if (!model.ok()) return model.status();
  return Mode{*std::move(backend), *std::move(model), exact ? KvDtype::kF32 : KvDtype::kF16};
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

void print(const nlohmann::json& row, bool json) {
  if (json) {
    std::cout << row << std::endl;
    return;
  }
  std::cout << absl::StrFormat("%-28s %-8s positions %5d  mean KL %.6f  top-1 agreement %.2f %%\n",
                               row["text"].get<std::string>(), row["phase"].get<std::string>(),
                               row["positions"].get<int64_t>(), row["mean_kl"].get<double>(),
                               100 * row["top1_agreement"].get<double>())
            << std::flush;
}

absl::Status run(const std::string& model, const std::string& isa, const std::vector<std::string>& paths, size_t decode,
                 bool json) {
  auto file = GgufFile::open(model);
  if (!file.ok()) return file.status();
  auto texts = read_texts(paths, **file);
  if (!texts.ok()) return texts.status();
  auto exact = load_mode(**file, true, ""), fast = load_mode(**file, false, isa);
  if (!exact.ok()) return exact.status();
  if (!fast.ok()) return fast.status();
  std::cerr << "default mode: " << fast->backend->description() << "\n";
  for (const Text& text : *texts) {
    auto prompt = compare_prompt(*exact, *fast, text.ids);
    if (!prompt.ok()) return prompt.status();
    print(prompt->report(text.name, "prefill"), json);
    const size_t tokens = std::min(decode, text.ids.size() - 1);
    if (tokens == 0) continue;
    auto stepped = compare_decode(*exact, *fast, text.ids, tokens);
    if (!stepped.ok()) return stepped.status();
    print(stepped->report(text.name, "decode"), json);
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace pkv

int main(int argc, char** argv) {
  CLI::App app("Mean KL(exact mode || default mode) and top-1 agreement over every position of given texts");
  std::string model, isa;
  std::vector<std::string> paths;
  size_t decode = 64;
  bool json = false;
  app.add_option("--model", model, "GGUF file")->envname("PKV_MODEL")->required();
  app.add_option("--isa", isa, "Highest instruction-set path of the default mode");
  app.add_option("--decode", decode, "Also read the last so many tokens one by one")->capture_default_str();
  app.add_flag("--json", json, "One JSON object a line");
  app.add_option("texts", paths, "Text files, or .json files {name: [token ids]}")->required();
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = pkv::run(model, isa, paths, decode, json);
  if (status.ok()) return 0;
  std::cerr << "pkv-fidelity: " << status.message() << "\n";
  return 1;
}
