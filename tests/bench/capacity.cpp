// pkv-capacity: how many requests with 8,000-token prompts a pool holds at once, all of them generating. By default
// over a machine that computes nothing, with the shape of SmolLM2-135M and a pool of 1 GiB: scheduler, admission, cache
// and eviction are the real ones. With --model, fewer requests on that model. Exit code 1 where anything was broken.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <fstream>
#include <iostream>
#include <mutex>
#include <nlohmann/json.hpp>
#include <random>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "kernels/check.h"
#include "server/engine/cache_report.h"
#include "server/policy/registry.h"
#include "tests/bench/step_watch.h"
#include "tests/support/lane_table.h"
#include "tests/support/null_backend.h"
#include "tests/support/report_check.h"
#include "tests/support/submit.h"

namespace pkv {
namespace {

constexpr int32_t kBudget = 128;
constexpr int32_t kLongAnswer = 32'000;
constexpr double kMiB = 1 << 20;

struct CapacityOptions {
  std::string model;
  int32_t requests = 420, prompt = 8000;
  uint64_t pool_mib = 1024;
  bool json = false;
};

// Requests that run at once: policy i % specs.size() for request i.
struct Load {
  std::string name;
  std::vector<PolicySpec> specs;
  int32_t requests = 0, prompt = 0;
  uint64_t pool_bytes = 0;
};

PolicySpec total(PolicyKind kind) {
  return {.kind = kind,
          .budget = {.kind = BudgetKind::kTokens, .tokens = kBudget, .scope = BudgetScope::kTotal},
          .lane_table = test::lane_table()};
}

std::vector<PolicySpec> every_policy() {
  std::vector<PolicySpec> specs;
  for (const PolicyRow& row : policy_table()) {
    if (row.takes_budget) specs.push_back(total(row.kind));
  }
  return specs;
}

uint64_t resident_bytes() {
  uint64_t pages = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> pages >> resident;
  return resident * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

class LoadRun {
 public:
  LoadRun(const Model& model, Load load);
  nlohmann::json run();

 private:
  friend class LoadSink;
  void at_step(const EngineStats& stats);
  std::shared_ptr<Request> make_request(size_t index) const;
  Contract promise(const Request& request) const;
  // A sink was told its end.
  void end();
  // Everything that was admitted is generating, and nobody else can be.
  void wait_until_full();

  const Model& model_;
  Load load_;
  uint64_t resident_before_ = resident_bytes(), resident_full_ = 0;
  Breaches breaches_;
  StepWatch watch_{breaches_, EngineOptions{}.workspace_bytes};
  std::atomic<bool> all_submitted_ = false;
  std::atomic<bool> full_ = false;
  EngineStats stats_when_full_;
  std::mutex mutex_;
  std::condition_variable changed_;
  int32_t ended_ = 0;
  std::atomic<int32_t> answered_ = 0;
  std::unique_ptr<Engine> engine_;
};

class LoadSink final : public TokenSink {
 public:
  LoadSink(LoadRun& run, std::shared_ptr<const Request> request) : run_(run), request_(std::move(request)) {}
  void on_start() override { started_ = true; }
  void on_progress(double) override {}
  void on_prompt_logprobs(std::span<const TokenLogprob>) override {}
  bool on_token(const TokenLogprob&) override { return !run_.full_; }
  void on_end(RequestResult result) override {
    sort_positions(result);
    ++run_.answered_;
    run_.breaches_.expect(run_.full_, "a request ended before all were there: longer answers are needed");
    const Contract promised = run_.promise(*request_);
    const auto violations = test::report_violations({.shape = run_.model_.shape(),
                                                     .page_bytes = run_.engine_->options().page_bytes,
                                                     .spec = request_->policy,
                                                     .prompt_tokens = result.prompt_tokens,
                                                     .promised = promised,
                                                     .whole_answer = false},
                                                    result.cache);
    for (const std::string& violation : violations) run_.breaches_.add(absl::StrCat(request_->id, ": ", violation));
    run_.end();
  }
  void on_error(const absl::Status& status) override {
    if (!given_up_ || status.code() != absl::StatusCode::kCancelled) run_.breaches_.add(status.ToString());
    run_.end();
  }
  // Cancels the request if it still waits. It may start at that very moment, when others make room.
  void give_up_waiting() {
    if (started_) return;
    given_up_ = true;
    run_.engine_->cancel(this);
  }

 private:
  LoadRun& run_;
  std::shared_ptr<const Request> request_;
  std::atomic<bool> started_ = false, given_up_ = false;
};

LoadRun::LoadRun(const Model& model, Load load) : model_(model), load_(std::move(load)) {
  // A prompt is read in one step, so that few decode steps lie between the first request and the last.
  auto engine = Engine::create(model, {.pool_bytes = load_.pool_bytes,
                                       .max_running = load_.requests,
                                       .max_waiting = load_.requests,
                                       .prefill_chunk_rows = load_.prompt,
                                       .step_tokens = load_.prompt,
                                       .step_rows = load_.prompt,
                                       .at_step = [this](const EngineStats& stats) { at_step(stats); }});
  PKV_CHECK(engine.ok(), engine.status().ToString().c_str());
  engine_ = *std::move(engine);
}

void LoadRun::at_step(const EngineStats& stats) {
  watch_.check(stats);
  if (full_ || !all_submitted_ || stats.running == 0) return;
  const auto generating = std::count_if(stats.requests.begin(), stats.requests.end(),
                                        [](const EngineStats::RequestRow& row) { return row.phase == "decode"; });
  if (generating < stats.running || stats.running + stats.waiting < static_cast<uint32_t>(load_.requests)) return;
  const std::lock_guard lock(mutex_);
  stats_when_full_ = stats;
  resident_full_ = resident_bytes();
  full_ = true;
  changed_.notify_all();
}

std::shared_ptr<Request> LoadRun::make_request(size_t index) const {
  auto request = std::make_shared<Request>();
  request->policy = load_.specs[index % load_.specs.size()];
  request->id = absl::StrCat("request ", index, " (", std::string(policy_row(request->policy.kind).name), ")");
  std::mt19937 rng(static_cast<uint32_t>(index));
  std::uniform_int_distribution<TokenId> id(0, std::min(40'000, model_.shape().vocab_size) - 1);
  for (int32_t i = 0; i < load_.prompt; ++i) request->prompt.push_back(id(rng));
  const bool endless = request->policy.params.position_mode == PositionMode::kCacheRelative;
  request->sampling.max_tokens =
      endless ? kLongAnswer : std::min(kLongAnswer, model_.shape().max_positions - load_.prompt);
  request->sampling.ignore_eos = true;
  request->record_positions = true;
  return request;
}

Contract LoadRun::promise(const Request& request) const {
  auto contract = engine_->estimate(query_of(request));
  PKV_CHECK(contract.ok(), contract.status().ToString().c_str());
  return *std::move(contract);
}

void LoadRun::end() {
  const std::lock_guard lock(mutex_);
  ++ended_;
  changed_.notify_all();
}

void LoadRun::wait_until_full() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return full_ || ended_ == load_.requests; });
}

nlohmann::json LoadRun::run() {
  const absl::Time start = absl::Now();
  std::vector<std::shared_ptr<LoadSink>> sinks;
  uint64_t peak_bytes = 0;
  for (size_t i = 0; i < static_cast<size_t>(load_.requests); ++i) {
    const std::shared_ptr<Request> request = make_request(i);
    peak_bytes = std::max(peak_bytes, promise(*request).peak_bytes);
    sinks.push_back(std::make_shared<LoadSink>(*this, request));
    const absl::Status status = test::prepare_and_submit(*engine_, request, sinks.back());
    PKV_CHECK(status.ok(), status.ToString().c_str());
  }
  all_submitted_ = true;
  wait_until_full();
  for (const auto& sink : sinks) sink->give_up_waiting();
  engine_->drain(absl::InfiniteFuture());
  const EngineStats end = *engine_->stats(), &full = stats_when_full_;
  breaches_.expect(full_, "the load was never complete");
  breaches_.expect(end.live_bytes == 0 && end.cache.auxiliary == 0, "something is left at the end");
  breaches_.expect(answered_ >= static_cast<int32_t>(full.running), "a request that ran was not answered");
  return {{"load", load_.name},
          {"backend", std::string(model_.backend().name())},
          {"prompt_tokens", load_.prompt},
          {"running_at_once", full.running},
          {"waiting", full.waiting},
          {"pool_bytes", full.pool_bytes},
          {"reserved_bytes", full.reserved_bytes},
          {"live_bytes", full.live_bytes},
          {"held_bytes", full.cache.held},
          {"auxiliary_bytes", full.cache.auxiliary},
          {"most_live_bytes", watch_.most_live_bytes()},
          {"largest_peak_of_a_request_bytes", peak_bytes},
          {"workspace_bytes", full.workspace_bytes},
          {"resident_bytes_before", resident_before_},
          {"resident_bytes_at_once", resident_full_},
          {"weight_bytes", model_.weight_bytes()},
          {"steps_checked", watch_.steps()},
          {"breaches", breaches_.count()},
          {"first_breaches", breaches_.first()},
          {"seconds", absl::ToDoubleSeconds(absl::Now() - start)}};
}

class Table {
 public:
  explicit Table(bool json) : json_(json) {}
  bool intact() const { return breaches_ == 0; }
  void add(const nlohmann::json& row) {
    breaches_ += row["breaches"].get<int64_t>();
    if (json_) {
      std::cout << row << std::endl;
      return;
    }
    const auto mib = [&](const char* name) { return static_cast<double>(row[name].get<uint64_t>()) / kMiB; };
    std::cout
        << absl::StreamFormat(
               "%s\n  at once %d (waiting %d)   pool %.0f MiB, reserved %.0f, in pages %.0f (largest %.0f), entries "
               "%.0f, auxiliary %.0f\n  largest peak of one %.1f MiB   workspace %.0f MiB   resident %.0f -> %.0f "
               "MiB (weights %.0f)\n  steps checked %d   breaches %d   %.0f s\n",
               row["load"].get<std::string>(), row["running_at_once"].get<int64_t>(), row["waiting"].get<int64_t>(),
               mib("pool_bytes"), mib("reserved_bytes"), mib("live_bytes"), mib("most_live_bytes"), mib("held_bytes"),
               mib("auxiliary_bytes"), mib("largest_peak_of_a_request_bytes"), mib("workspace_bytes"),
               mib("resident_bytes_before"), mib("resident_bytes_at_once"), mib("weight_bytes"),
               row["steps_checked"].get<int64_t>(), row["breaches"].get<int64_t>(), row["seconds"].get<double>())
        << std::flush;
    for (const auto& breach : row["first_breaches"]) std::cout << "  BREACH " << breach.get<std::string>() << "\n";
  }

 private:
  bool json_;
  int64_t breaches_ = 0;
};

// SmolLM2-135M but for its vocabulary and, so that answers may be long, its length.
ModelShape smollm2_shape() {
  return {.architecture = "null",
          .layers = 30,
          .q_heads = 9,
          .kv_heads = 3,
          .head_dim = 64,
          .width = 576,
          .feed_forward = 1536,
          .vocab_size = 256,
          .max_positions = 65'536};
}

void run_null(const CapacityOptions& options, Table& table) {
  test::NullBackend backend;
  const test::NullModel model(backend, smollm2_shape());
  const auto load = [&](const char* name, std::vector<PolicySpec> specs, int32_t requests) {
    table.add(LoadRun(model, {.name = name,
                              .specs = std::move(specs),
                              .requests = requests,
                              .prompt = options.prompt,
                              .pool_bytes = options.pool_mib << 20})
                  .run());
  };
  ModelShape short_answers = smollm2_shape();
  short_answers.max_positions = options.prompt + 400;
  const test::NullModel brief(backend, short_answers);
  for (const KvDtype dtype : {KvDtype::kF16, KvDtype::kK8V4}) {
    table.add(LoadRun(brief, {.name = absl::StrCat("full, ", entry_format(dtype).name),
                              .specs = {PolicySpec{.kv_dtype = dtype}},
                              .requests = 24,
                              .prompt = options.prompt,
                              .pool_bytes = options.pool_mib << 20})
                  .run());
  }
  load("pyramidkv, 128 entries, TOTAL", {total(PolicyKind::kPyramidKv)}, options.requests);
  std::vector<PolicySpec> mixed = every_policy();
  // A budget that has to hold at every instant, the whole layer of a prefill (6 MiB) included.
  PolicySpec by_bytes = total(PolicyKind::kPyramidKv);
  by_bytes.budget = {.kind = BudgetKind::kBytes, .bytes = 10 << 20, .scope = BudgetScope::kTotal};
  mixed.push_back(by_bytes);
  load("every policy with a budget, 128 entries, TOTAL", mixed, options.requests);
}

// Positions of the text end at the model's length, so the requests that wait longest for the others are those that do
// not use them.
void run_model(const CapacityOptions& options, Table& table) {
  const auto checked = [](auto made) {
    PKV_CHECK(made.ok(), made.status().ToString().c_str());
    return *std::move(made);
  };
  const std::unique_ptr<GgufFile> file = checked(GgufFile::open(options.model));
  const std::unique_ptr<Backend> backend = checked(make_backend({.device = "cpu"}));
  const std::unique_ptr<Model> model = checked(load_model(*file, *backend));
  PolicySpec endless = total(PolicyKind::kStreamingLlm);
  endless.params.position_mode = PositionMode::kCacheRelative;
  std::vector<PolicySpec> specs = {endless, endless, endless};
  for (const PolicyKind kind : {PolicyKind::kPyramidKv, PolicyKind::kSnapKv, PolicyKind::kH2o, PolicyKind::kTova,
                                PolicyKind::kKeyDiff, PolicyKind::kPyramidKv}) {
    specs.push_back(total(kind));
  }
  const auto requests = static_cast<int32_t>(specs.size());
  table.add(LoadRun(*model, {.name = "a real model, 128 entries, TOTAL",
                             .specs = std::move(specs),
                             .requests = requests,
                             .prompt = options.prompt,
                             .pool_bytes = options.pool_mib << 20})
                .run());
}

}  // namespace
}  // namespace pkv

int main(int argc, char** argv) {
  pkv::CapacityOptions options;
  CLI::App app("How many requests with long prompts run at once");
  app.add_option("--model", options.model, "GGUF file: nine requests on it instead");
  app.add_option("--requests", options.requests, "To be submitted")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--prompt", options.prompt, "Tokens of a prompt")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--pool-mib", options.pool_mib)->capture_default_str()->check(CLI::PositiveNumber);
  app.add_flag("--json", options.json);
  CLI11_PARSE(app, argc, argv);
  pkv::Table table(options.json);
  options.model.empty() ? pkv::run_null(options, table) : pkv::run_model(options, table);
  return table.intact() ? 0 : 1;
}
