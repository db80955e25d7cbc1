// The tiny model, its engine and the recording sink.
#include "tests/unit/engine/engine_fixture.h"

#include <gtest/gtest.h>

#include <random>
#include <utility>

#include "kernels/check.h"
#include "server/engine/cache_report.h"
#include "tests/support/lane_table.h"
#include "tests/support/tested_backend.h"

namespace pkv::test {

void RecordingSink::on_start() {
  ++starts;
  if (at_start) at_start();
}

void RecordingSink::on_progress(double prefill_done) { progress.push_back(prefill_done); }

void RecordingSink::on_prompt_logprobs(std::span<const TokenLogprob> tile) {
  prompt_logprobs.insert(prompt_logprobs.end(), tile.begin(), tile.end());
}

bool RecordingSink::on_token(const TokenLogprob& token) {
  tokens.push_back(token);
  return at_token ? at_token(static_cast<int32_t>(tokens.size())) : true;
}

void RecordingSink::on_end(RequestResult end) {
  sort_positions(end);
  result = std::move(end);
  finish();
}

void RecordingSink::on_error(const absl::Status& error) {
  status = error;
  finish();
}

void RecordingSink::finish() {
  if (at_end) at_end();
  std::lock_guard lock(mutex_);
  ++ends;
  finished_.notify_all();
}

void RecordingSink::wait() {
  std::unique_lock lock(mutex_);
  finished_.wait(lock, [&] { return ends > 0; });
}

std::vector<TokenId> RecordingSink::ids() const {
  std::vector<TokenId> ids;
  for (const TokenLogprob& token : tokens) ids.push_back(token.id);
  return ids;
}

void Gate::pass() {
  std::unique_lock lock(mutex_);
  arrived_ = true;
  changed_.notify_all();
  changed_.wait(lock, [&] { return open_; });
}

void Gate::wait_for_guest() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return arrived_; });
}

void Gate::open() {
  std::lock_guard lock(mutex_);
  open_ = true;
  changed_.notify_all();
}

TinyModel make_tiny_model(std::unique_ptr<Backend> backend, WeightType weights) {
  TinyModel tiny{.backend = std::move(backend)};
  tiny.file = std::make_unique<TempFile>(make_tiny_llama({.layers = 3, .weight_type = weights}));
  auto gguf = GgufFile::open(tiny.file->path());
  PKV_CHECK(gguf.ok(), gguf.status().ToString().c_str());
  tiny.gguf = *std::move(gguf);
  auto model = load_model(*tiny.gguf, *tiny.backend);
  PKV_CHECK(model.ok(), model.status().ToString().c_str());
  tiny.model = *std::move(model);
  return tiny;
}

TinyModel make_tiny_model(const BackendOptions& options, WeightType weights) {
  if (options.device == "reference") return make_tiny_model(make_tested_backend(), weights);
  auto backend = make_backend(options);
  PKV_CHECK(backend.ok(), backend.status().ToString().c_str());
  return make_tiny_model(*std::move(backend), weights);
}

EngineOptions small_options() {
  // Pages of 8 slots of f16 entries at head size 16.
  return {.pool_bytes = 2048 * 512, .page_bytes = 512, .prefill_chunk_rows = 32, .step_tokens = 32};
}

EngineOptions watched_options() {
  EngineOptions options = small_options();
  options.at_step = [](const EngineStats&) {};
  return options;
}

std::unique_ptr<Engine> make_engine(const Model& model, const EngineOptions& options) {
  auto engine = Engine::create(model, options);
  PKV_CHECK(engine.ok(), engine.status().ToString().c_str());
  return *std::move(engine);
}

std::vector<TokenId> random_prompt(int32_t tokens, uint32_t seed) {
  std::mt19937 rng(seed);
  std::vector<TokenId> prompt;
  for (int32_t i = 0; i < tokens; ++i) prompt.push_back(kTinyFirstByte + static_cast<TokenId>(rng() % 256));
  return prompt;
}

PolicySpec policy(PolicyKind kind, int64_t budget_tokens) {
  PolicySpec spec{.kind = kind, .lane_table = lane_table()};
  if (budget_tokens > 0) spec.budget = {.kind = BudgetKind::kTokens, .tokens = budget_tokens};
  return spec;
}

std::shared_ptr<Request> make_request(std::vector<TokenId> prompt, int32_t max_tokens, const PolicySpec& spec) {
  auto request = std::make_shared<Request>();
  request->id = "request";
  request->prompt = std::move(prompt);
  request->sampling.max_tokens = max_tokens;
  request->policy = spec;
  return request;
}

std::shared_ptr<RecordingSink> submit(Engine& engine, std::shared_ptr<const Request> request,
                                      std::shared_ptr<RecordingSink> sink) {
  const absl::Status status = prepare_and_submit(engine, std::move(request), sink);
  PKV_CHECK(status.ok(), status.ToString().c_str());
  return sink;
}

std::shared_ptr<RecordingSink> run(Engine& engine, std::shared_ptr<const Request> request) {
  auto sink = submit(engine, std::move(request));
  sink->wait();
  return sink;
}

}  // namespace pkv::test
