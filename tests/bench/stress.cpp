// pkv-stress: randomised requests of every policy, from several threads, against a pool that holds a tenth of what
// those in flight would need: on a tiny random model, or over a machine that computes nothing. After every step the
// engine's figures are compared with the allocator's, and at the end of every request its report with its promise. Exit
// code 1 where anything was broken.
#include <CLI/CLI.hpp>
#include <atomic>
#include <iostream>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <semaphore>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "kernels/check.h"
#include "server/engine/cache_report.h"
#include "server/engine/scheduler.h"
#include "server/policy/recall_shortfall.h"
#include "server/policy/registry.h"
#include "tests/bench/step_watch.h"
#include "tests/bench/stress_workload.h"
#include "tests/support/gguf_writer.h"
#include "tests/support/null_backend.h"
#include "tests/support/report_check.h"
#include "tests/support/shaped_policy.h"
#include "tests/support/submit.h"

namespace pkv {
namespace {

constexpr int32_t kContext = 512;
constexpr int32_t kPageBytes = 512;

struct StressOptions {
  int64_t requests = 100'000;
  int64_t null = 0;  // of these
  uint64_t seed = 1;
  int32_t threads = 4, in_flight = 120;
  test::LaneShape lanes = test::LaneShape::kOwn;
  bool json = false;
};

// Whether requests are admitted in the order they came, but for the overtaking that is allowed.
class Order {
 public:
  // Takes the next place in the queue; `submit` says whether it was let in.
  template <typename Submit>
  absl::Status enter(uint64_t& place, Submit&& submit) {
    const std::lock_guard lock(mutex_);
    place = next_++;
    waiting_[place] = 0;
    absl::Status status = submit();
    if (!status.ok()) waiting_.erase(place);
    return status;
  }
  void start(uint64_t place, Breaches& breaches) {
    const std::lock_guard lock(mutex_);
    breaches.expect(waiting_.erase(place) == 1, "a request starts twice");
    for (auto& [older, overtaken] : waiting_) {
      if (older > place) break;
      most_ = std::max(most_, ++overtaken);
      breaches.expect(overtaken <= Scheduler::kMaxOvertakes, "a request was overtaken too often");
    }
  }
  void leave(uint64_t place) {
    const std::lock_guard lock(mutex_);
    waiting_.erase(place);
  }
  int32_t most() const { return most_; }

 private:
  std::mutex mutex_;
  uint64_t next_ = 0;
  int32_t most_ = 0;
  std::map<uint64_t, int32_t> waiting_;  // place, and how often it was overtaken
};

struct Counts {
  std::atomic<int64_t> submitted = 0, refused = 0, answered = 0, cancelled = 0, short_of_recall = 0, failed = 0,
                       compared = 0;
  std::atomic<int64_t> prompt_tokens = 0, generated_tokens = 0, evicted_entries = 0;
  // Of answers, those of comparisons among them. Only the engine's thread counts here.
  std::map<std::string, int64_t> by_policy, by_format;
};

std::string policy_name(const PolicySpec& spec) {
  const std::string name(policy_row(spec.kind).name);
  if (spec.kind != PolicyKind::kFunnel) return name;
  return name + (spec.params.funnel_allocation == FunnelAllocation::kGlobal ? " GLOBAL" : " TABLE");
}

// One model, one engine, and everything that is known of the requests on it.
struct Stress {
  Stress(const Model& served, const StressOptions& wishes, uint64_t pool_bytes)
      : model(served), options(wishes), watch(breaches, kWorkspaceBytes), places(wishes.in_flight) {
    auto made = Engine::create(served, {.pool_bytes = pool_bytes,
                                        .page_bytes = kPageBytes,
                                        .max_running = 32,
                                        .max_waiting = wishes.in_flight,
                                        .prefill_chunk_rows = 64,
                                        .step_tokens = 64,
                                        .workspace_bytes = kWorkspaceBytes,
                                        .make_policy = test::shaped_policies(wishes.lanes),
                                        .at_step = [this](const EngineStats& stats) { check_step(stats); }});
    PKV_CHECK(made.ok(), made.status().ToString().c_str());
    engine = *std::move(made);
  }

  void check_step(const EngineStats& stats) {
    watch.check(stats);
    demand_sum += static_cast<double>(demand_bytes.load());
  }
  StressRequest request(int64_t index) const {
    return make_stress_request(
        options.seed, index, {.first_token = test::kTinyFirstByte, .last_token = test::kTinyFirstByte + 255}, *engine);
  }
  void client(int64_t first, int64_t end, int64_t step);
  void submit(int64_t index);

  static constexpr uint64_t kWorkspaceBytes = 1 << 20;
  const Model& model;
  const StressOptions& options;
  Breaches breaches;
  StepWatch watch;
  Order order;
  Counts counts;
  std::counting_semaphore<> places;
  std::atomic<uint64_t> demand_bytes = 0;  // peaks of the requests in flight
  double demand_sum = 0;                   // over the steps
  std::unique_ptr<Engine> engine;
};

Contract promise_of(const Engine& engine, const Request& request, const PolicySpec& spec,
                    std::span<const PolicySpec> compare_with = {}) {
  auto contract = engine.estimate({.policy = spec,
                                   .prompt_tokens = static_cast<int32_t>(request.prompt.size()),
                                   .max_tokens = request.sampling.max_tokens,
                                   .compare_with = compare_with});
  PKV_CHECK(contract.ok(), contract.status().ToString().c_str());
  return *std::move(contract);
}

class StressSink final : public TokenSink {
 public:
  StressSink(Stress& stress, StressRequest wishes, const Contract& promised)
      : stress_(stress), wishes_(std::move(wishes)), demand_bytes_(promised.peak_bytes) {}

  uint64_t place = 0;  // in the queue
  uint64_t demand_bytes() const { return demand_bytes_; }

  void on_start() override {
    started_ = true;
    stress_.order.start(place, stress_.breaches);
    if (wishes_.interruption == Interruption::kCancelAtStart) stress_.engine->cancel(this);
  }
  void on_progress(double) override {}
  void on_prompt_logprobs(std::span<const TokenLogprob>) override {}
  bool on_token(const TokenLogprob&) override {
    if (++tokens_ != wishes_.at_token) return true;
    if (wishes_.interruption == Interruption::kCancelAtToken) stress_.engine->cancel(this);
    return wishes_.interruption != Interruption::kStopAtToken;
  }
  void on_end(RequestResult result) override {
    sort_positions(result);
    ++stress_.counts.answered;
    stress_.counts.prompt_tokens += result.prompt_tokens;
    stress_.counts.generated_tokens += result.completion_tokens;
    const Request& request = *wishes_.request;
    stress_.breaches.expect(result.comparisons.size() == request.compare_with.size(),
                            "a policy of a comparison is missing");
    stress_.counts.compared += request.compare_with.empty() ? 0 : 1;
    const bool whole = result.completion_tokens == request.sampling.max_tokens;
    check(request.policy, result.cache, whole);
    for (size_t i = 0; i < result.comparisons.size(); ++i) {
      const PolicyComparison& rival = result.comparisons[i];
      check(request.compare_with[i], rival.cache,
            static_cast<int32_t>(rival.tokens.size()) == request.sampling.max_tokens);
      stress_.breaches.expect(rival.kl.size() == static_cast<size_t>(result.completion_tokens),
                              "places without a divergence");
    }
    leave();
  }
  void on_error(const absl::Status& status) override {
    const bool asked = wishes_.interruption == Interruption::kCancelAtOnce ||
                       wishes_.interruption == Interruption::kCancelAtStart ||
                       wishes_.interruption == Interruption::kCancelAtToken;
    if (status.code() == absl::StatusCode::kCancelled && asked) {
      ++stress_.counts.cancelled;
    } else if (recall_shortfall(status) && may_fall_short()) {
      ++stress_.counts.short_of_recall;
    } else {
      ++stress_.counts.failed;
      stress_.breaches.add(absl::StrCat("request ", wishes_.request->id, " failed: ", status.ToString()));
    }
    leave();
  }

 private:
  bool may_fall_short() const {
    const auto may = [](const PolicySpec& spec) { return spec.budget.max_bytes > 0 && !spec.budget.allow_shortfall; };
    const auto& rivals = wishes_.request->compare_with;
    return may(wishes_.request->policy) || std::any_of(rivals.begin(), rivals.end(), may);
  }
  void check(const PolicySpec& spec, const CacheReport& report, bool whole) {
    const Request& request = *wishes_.request;
    const Contract promised = promise_of(*stress_.engine, request, spec);
    stress_.counts.evicted_entries += static_cast<int64_t>(report.evicted_entries);
    ++stress_.counts.by_policy[policy_name(spec)];
    ++stress_.counts.by_format[std::string(entry_format(spec.kv_dtype).name)];
    const auto violations = test::report_violations({.shape = stress_.model.shape(),
                                                     .page_bytes = kPageBytes,
                                                     .spec = spec,
                                                     .prompt_tokens = static_cast<int32_t>(request.prompt.size()),
                                                     .promised = promised,
                                                     .whole_answer = whole,
                                                     .own_division = stress_.options.lanes == test::LaneShape::kOwn},
                                                    report);
    for (const std::string& violation : violations) {
      stress_.breaches.add(absl::StrCat("request ", request.id, ", ", policy_name(spec), ": ", violation));
    }
  }
  void leave() {
    if (!started_) stress_.order.leave(place);
    stress_.demand_bytes -= demand_bytes_;
    stress_.places.release();
  }

  Stress& stress_;
  StressRequest wishes_;
  uint64_t demand_bytes_;
  int32_t tokens_ = 0;
  bool started_ = false;
};

void Stress::submit(int64_t index) {
  const StressRequest wishes = request(index);
  const Contract promised = promise_of(*engine, *wishes.request, wishes.request->policy, wishes.request->compare_with);
  const bool too_little = promised.refusal && promised.refusal->reason == Refusal::Reason::kBudget;
  breaches.expect(too_little == wishes.asks_too_little,
                  "a budget one byte too small is let in, or a larger one is not");
  auto sink = std::make_shared<StressSink>(*this, wishes, promised);
  demand_bytes += sink->demand_bytes();
  ++counts.submitted;
  const absl::Status status =
      order.enter(sink->place, [&] { return test::prepare_and_submit(*engine, wishes.request, sink); });
  if (status.ok()) {
    if (wishes.interruption == Interruption::kCancelAtOnce) engine->cancel(sink.get());
    return;
  }
  demand_bytes -= sink->demand_bytes();
  places.release();
  ++counts.refused;
  if (status.code() != absl::StatusCode::kFailedPrecondition || !promised.refusal) {
    breaches.add(absl::StrCat("request ", index, " was refused: ", status.ToString()));
  }
}

void Stress::client(int64_t first, int64_t end, int64_t step) {
  for (int64_t index = first; index < end; index += step) {
    places.acquire();
    submit(index);
  }
}

// What the requests in flight would need, by a sample of them.
uint64_t mean_demand(const Model& model, const StressOptions& options, int64_t first) {
  constexpr int64_t kSample = 1000;
  Stress probe(model, options, uint64_t{1} << 30);
  uint64_t sum = 0;
  for (int64_t i = 0; i < kSample; ++i) {
    const StressRequest wishes = probe.request(first + i);
    sum += promise_of(*probe.engine, *wishes.request, wishes.request->policy, wishes.request->compare_with).peak_bytes;
  }
  return sum / kSample * static_cast<uint64_t>(options.in_flight);
}

nlohmann::json run_requests(const Model& model, const StressOptions& options, int64_t first, int64_t count) {
  const absl::Time start = absl::Now();
  Stress stress(model, options, mean_demand(model, options, first) / 10);
  {
    std::vector<std::jthread> clients;
    for (int32_t t = 0; t < options.threads; ++t) {
      clients.emplace_back([&, t] { stress.client(first + t, first + count, options.threads); });
    }
  }
  stress.engine->drain(absl::InfiniteFuture());
  const EngineStats end = *stress.engine->stats();
  stress.breaches.expect(end.live_bytes == 0, "pages are left at the end");
  stress.breaches.expect(end.reserved_bytes == 0, "reservations are left at the end");
  stress.breaches.expect(end.cache.held == 0 && end.cache.allocated == 0 && end.cache.auxiliary == 0,
                         "bytes are left at the end");
  const Counts& counts = stress.counts;
  stress.breaches.expect(
      counts.submitted == counts.refused + counts.answered + counts.cancelled + counts.short_of_recall + counts.failed,
      "requests without an end");
  return {{"backend", std::string(model.backend().name())},
          {"requests", counts.submitted.load()},
          {"answered", counts.answered.load()},
          {"cancelled", counts.cancelled.load()},
          {"refused", counts.refused.load()},
          {"failed", counts.failed.load()},
          {"recall_not_reached", counts.short_of_recall.load()},
          {"compared", counts.compared.load()},
          {"answers_by_policy", counts.by_policy},
          {"answers_by_format", counts.by_format},
          {"prompt_tokens", counts.prompt_tokens.load()},
          {"generated_tokens", counts.generated_tokens.load()},
          {"evicted_entries", counts.evicted_entries.load()},
          {"steps_checked", stress.watch.steps()},
          {"steps_with_waiting_requests", stress.watch.waiting_share()},
          {"pool_bytes", stress.watch.pool_bytes()},
          {"most_live_bytes", stress.watch.most_live_bytes()},
          {"mean_demand_over_pool", stress.demand_sum / static_cast<double>(stress.watch.steps()) /
                                        static_cast<double>(stress.watch.pool_bytes())},
          {"most_running", stress.watch.most_running()},
          {"most_overtakes", stress.order.most()},
          {"pages_left", end.live_bytes / kPageBytes},
          {"auxiliary_bytes_left", end.cache.auxiliary},
          {"breaches", stress.breaches.count()},
          {"first_breaches", stress.breaches.first()},
          {"seconds", absl::ToDoubleSeconds(absl::Now() - start)}};
}

nlohmann::json run_null(const StressOptions& options, int64_t first, int64_t count) {
  test::NullBackend backend;
  const test::NullModel model(backend, {.architecture = "null",
                                        .layers = 4,
                                        .q_heads = 4,
                                        .kv_heads = 2,
                                        .head_dim = 16,
                                        .width = 32,
                                        .feed_forward = 32,
                                        .vocab_size = 320,
                                        .max_positions = kContext});
  return run_requests(model, options, first, count);
}

nlohmann::json run_tiny(const StressOptions& options, int64_t first, int64_t count) {
  const auto checked = [](auto made) {
    PKV_CHECK(made.ok(), made.status().ToString().c_str());
    return *std::move(made);
  };
  const std::unique_ptr<Backend> backend = checked(make_backend({.device = "cpu", .threads = 1}));
  const test::TempFile file = test::make_tiny_llama({.layers = 3, .context = kContext});
  const std::unique_ptr<GgufFile> gguf = checked(GgufFile::open(file.path()));
  const std::unique_ptr<Model> model = checked(load_model(*gguf, *backend));
  return run_requests(*model, options, first, count);
}

void print(const nlohmann::json& part) {
  for (const auto& [name, value] : part.items()) {
    if (name != "first_breaches") std::cout << absl::StreamFormat("  %-28s %s\n", name, value.dump());
  }
  for (const auto& breach : part["first_breaches"]) std::cout << "  BREACH " << breach.get<std::string>() << "\n";
  std::cout << std::endl;
}

int run(const StressOptions& options) {
  int64_t breaches = 0;
  const auto show = [&](const char* title, const nlohmann::json& part) {
    breaches += part["breaches"].get<int64_t>();
    if (options.json) {
      std::cout << part << std::endl;
    } else {
      std::cout << title << "\n";
      print(part);
    }
  };
  const int64_t null = std::min(options.null, options.requests), tiny = options.requests - null;
  if (tiny > 0) show("A tiny random model", run_tiny(options, 0, tiny));
  if (null > 0) show("A machine that computes nothing", run_null(options, tiny, null));
  return breaches == 0 ? 0 : 1;
}

}  // namespace
}  // namespace pkv

int main(int argc, char** argv) {
  pkv::StressOptions options;
  CLI::App app("Random requests of every policy on a pool a tenth of their demand, checked after every step");
  std::map<std::string, pkv::test::LaneShape> shapes;
  for (const pkv::test::LaneShape shape : pkv::test::kLaneShapes) shapes[pkv::test::name_of(shape)] = shape;
  app.add_option("--requests", options.requests, "In all")->capture_default_str()->check(CLI::NonNegativeNumber);
  app.add_option("--null", options.null, "Of these over a machine that computes nothing")->capture_default_str();
  app.add_option("--seed", options.seed)->capture_default_str();
  app.add_option("--threads", options.threads, "Clients")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--in-flight", options.in_flight, "Requests at once")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--lanes", options.lanes, "How budgets are divided: the policies' own way, or at random")
      ->transform(CLI::CheckedTransformer(shapes, CLI::ignore_case))
      ->default_str(pkv::test::name_of(options.lanes));
  app.add_flag("--json", options.json);
  CLI11_PARSE(app, argc, argv);
  return pkv::run(options);
}
