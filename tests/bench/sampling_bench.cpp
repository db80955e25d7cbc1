// From logits to tokens: what the server does against the plain definition on the host, in turns, 64 rows at a time.
//
//   sampling_bench [threads]   (0: one per core)
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "kernels/check.h"
#include "server/engine/next_token.h"
#include "tests/unit/engine/plain_sampler.h"

namespace pkv {
namespace {

constexpr int32_t kRows = 64;

// A model whose logits are always the same, and there.
class SameLogits final : public Model {
 public:
  SameLogits(Backend& backend, int32_t vocabulary, const std::vector<float>& values)
      : Model(backend), shape_{.width = 1, .vocab_size = vocabulary}, values_(values) {}
  const ModelShape& shape() const override { return shape_; }
  size_t weight_bytes() const override { return 0; }
  RopeSpec rope() const override { return {}; }
  void embed(const int32_t*, const TensorView&) const override {}
  void run_layer(const StepPlan&, int32_t, const TensorView&, StepScratch&, const LayerRun&) const override {}
  void logits(const TensorView&, Phase, const TensorView&, const TensorView& logits) const override {
    if (!there_) backend().upload(logits, values_.data());
    there_ = true;
  }

 private:
  ModelShape shape_;
  const std::vector<float>& values_;
  mutable bool there_ = false;
};

double seconds_of(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

struct Bench {
  Backend& backend;
  int32_t vocabulary;
  std::vector<float> logits;  // [kRows, vocabulary]

  void compare(const char* name, const SamplingParams& params) {
    Request request{.prompt = {1, 2, 3}, .sampling = params};
    const SameLogits model(backend, vocabulary, logits);
    OutputHead head = *OutputHead::create(model, kRows, kRows);
    const Tensor x = *backend.allocate(kRows, 1, DType::kF32),
                 plain = *backend.allocate(kRows, vocabulary, DType::kF32);
    backend.upload(plain.view(), logits.data());
    std::vector<LogitEdits> edits;
    std::vector<OutputHead::Row> rows;
    for (int32_t r = 0; r < kRows; ++r) edits.push_back(*LogitEdits::create(backend, request, vocabulary));
    std::vector<std::mt19937_64> rngs(kRows), plain_rngs(kRows);
    for (size_t r = 0; r < edits.size(); ++r) {
      rngs[r].seed(r);
      plain_rngs[r].seed(r);
      rows.push_back(next_token_row(request, {}, edits[r], rngs[r]));
    }
    std::vector<float> host(logits.size());
    std::vector<TokenId> tokens, plain_tokens;
    const auto after = [&] {
      tokens.clear();
      PKV_CHECK(head.run({.x = x.view(), .phase = Phase::kDecode, .rows = rows},
                         [&](size_t, const OutputHead::Result& output) {
                           tokens.push_back(next_token(request, {}, output).value().id);
                           return absl::OkStatus();
                         })
                    .ok(),
                "a run");
    };
    const auto before = [&] {
      plain_tokens.clear();
      backend.fetch({host.data(), plain.view()});
      for (int32_t r = 0; r < kRows; ++r) {
        const std::span<float> row = std::span(host).subspan(static_cast<size_t>(r) * static_cast<size_t>(vocabulary),
                                                             static_cast<size_t>(vocabulary));
        plain_tokens.push_back(
            test::plain_sample({.logits = row, .prompt = request.prompt}, params, plain_rngs[static_cast<size_t>(r)]));
      }
    };
    double fastest_before = 1e30, fastest_after = 1e30;
    for (int turn = 0; turn < 7; ++turn) {
      fastest_before = std::min(fastest_before, seconds_of(before));
      fastest_after = std::min(fastest_after, seconds_of(after));
      PKV_CHECK(tokens == plain_tokens, "other tokens than by definition");
    }
    std::printf("%-12s %8d %12.2f %12.2f %8.1f\n", name, vocabulary, fastest_before * 1e3, fastest_after * 1e3,
                fastest_before / fastest_after);
    std::fflush(stdout);
  }
};

// As a model's: most of the mass on a few tokens.
std::vector<float> model_like(int32_t vocabulary) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 2.5f);
  std::vector<float> logits(static_cast<size_t>(kRows) * static_cast<size_t>(vocabulary));
  for (float& logit : logits) logit = normal(random);
  for (int32_t r = 0; r < kRows; ++r) {
    for (int32_t i = 0; i < 40; ++i) {
      const size_t token = random() % static_cast<uint32_t>(vocabulary);
      logits[static_cast<size_t>(r) * static_cast<size_t>(vocabulary) + token] += 17.0f - 0.15f * static_cast<float>(i);
    }
  }
  return logits;
}

}  // namespace
}  // namespace pkv

int main(int count, char** arguments) {
  using namespace pkv;
  const auto backend = make_backend({.device = "cpu", .threads = count > 1 ? std::atoi(arguments[1]) : 0});
  if (!backend.ok()) {
    std::fprintf(stderr, "%s\n", backend.status().ToString().c_str());
    return 1;
  }
  std::printf("%s, %d rows\n", (*backend)->description().c_str(), kRows);
  std::printf("%-12s %8s %12s %12s %8s\n", "sampling", "tokens", "plain ms", "server ms", "ratio");
  for (const int32_t vocabulary : {49'152, 151'936}) {
    Bench bench{.backend = **backend, .vocabulary = vocabulary, .logits = model_like(vocabulary)};
    bench.compare("greedy", {});
    bench.compare("penalties", {.repetition_penalty = 1.1f, .frequency_penalty = 0.5f});
    bench.compare("top_k 40", {.temperature = 1, .top_k = 40});
    bench.compare("top_p 0.9", {.temperature = 1, .top_p = 0.9f});
    bench.compare("min_p 0.05", {.temperature = 1, .min_p = 0.05f});
    bench.compare("unfiltered", {.temperature = 1});
    // What nobody's best few decide:
    bench.compare("flat", {.temperature = 100, .top_p = 0.99f});
    bench.compare("wide top_k", {.temperature = 1, .top_k = vocabulary - 1});
  }
  return 0;
}
