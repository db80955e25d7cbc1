// pkv-planning: what it costs the host to plan a decode step (room for every token, page tables, and everything the
// step's operations read), beside a machine that computes nothing. Prints medians, and counts of steps, commits and
// allocations.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "server/engine/decode_planner.h"
#include "server/policy/registry.h"
#include "tests/support/counting_backend.h"
#include "tests/support/null_backend.h"

namespace {

int64_t allocations = 0;

}  // namespace

void* operator new(size_t bytes) {
  ++allocations;
  if (void* memory = std::malloc(bytes)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace pkv {
namespace {

struct Load {
  int32_t sequences = 64;
  int32_t layers = 32;
  int32_t kv_heads = 8;
  int32_t tokens = 8192;  // that every lane holds before the first step
  int32_t steps = 500;
};

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<int64_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

template <typename T>
T must(absl::StatusOr<T> value) {
  if (value.ok()) return *std::move(value);
  std::fprintf(stderr, "%s\n", value.status().ToString().c_str());
  std::exit(1);
}

void run(const Load& load) {
  auto null = std::make_unique<test::NullBackend>();
  test::NullBackend& machine = *null;
  const ModelShape shape{.architecture = "null",
                         .layers = load.layers,
                         .q_heads = load.kv_heads,
                         .kv_heads = load.kv_heads,
                         .head_dim = 128,
                         .width = 64,
                         .feed_forward = 64,
                         .vocab_size = 64,
                         .max_positions = 1 << 20};
  const test::NullModel model(machine, shape);
  test::CountingBackend counting(std::move(null));
  const CacheGeometry geometry{load.layers, load.kv_heads, shape.head_dim, 8192};
  const int32_t limit = load.tokens + load.steps;
  const uint64_t lanes = uint64_t{1} * load.sequences * load.layers * load.kv_heads;
  const uint64_t pages = lanes * static_cast<uint64_t>(geometry.layout(KvDtype::kF16).pages_for(limit));
  const auto cache = must(KvCache::create(counting, geometry, pages * static_cast<uint64_t>(geometry.page_bytes)));

  const PolicySpec spec{.kind = PolicyKind::kFull};
  const auto policy = must(make_policy(spec));
  CachePlan plan;
  plan.lane_limits.assign(static_cast<size_t>(load.layers) * static_cast<size_t>(load.kv_heads), limit);
  plan.lane_budgets = plan.lane_limits;
  std::vector<std::unique_ptr<SequenceLanes>> sequences;
  std::vector<DecodeRow> rows;
  for (int32_t i = 0; i < load.sequences; ++i) {
    sequences.push_back(must(SequenceLanes::open({.model = model,
                                                  .cache = *cache,
                                                  .policy = *policy,
                                                  .spec = spec,
                                                  .plan = plan,
                                                  .prompt_tokens = load.tokens})));
    // Of lengths of their own, so that they ask for pages at different steps.
    const int32_t length = load.tokens - i % geometry.layout(KvDtype::kF16).slots();
    for (int32_t layer = 0; layer < load.layers; ++layer) {
      if (!cache->append_slots(sequences.back()->id(), layer, length).ok()) std::abort();
    }
    rows.push_back({.lanes = sequences.back().get(), .token = i, .position = length});
  }

  auto planner = must(DecodePlanner::create(*cache, shape.vocab_size, load.sequences));
  std::vector<double> times;
  times.reserve(static_cast<size_t>(load.steps));
  const auto step = [&] {
    const auto start = std::chrono::steady_clock::now();
    planner.plan(rows, 0, rows.size(), [](size_t, const absl::Status&) { std::abort(); });
    times.push_back(std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count());
    for (DecodeRow& row : rows) ++row.position;
  };
  for (int32_t i = 0; i < 20; ++i) step();  // memory is touched, page tables are known
  times.clear();
  const int64_t commits = counting.count("commit"), before = allocations;
  for (int32_t i = 20; i < load.steps; ++i) step();
  const int64_t allocated = allocations - before;
  std::printf("%d sequences x %d layers x %d KV heads at %d tokens: %.1f us a step (median; most %.1f)\n",
              load.sequences, load.layers, load.kv_heads, load.tokens, median(times),
              *std::max_element(times.begin(), times.end()));
  std::printf("%zu steps: %lld commits, %lld allocations\n", times.size(),
              static_cast<long long>(counting.count("commit") - commits), static_cast<long long>(allocated));
}

}  // namespace
}  // namespace pkv

int main(int argc, char** argv) {
  pkv::Load load;
  CLI::App app("What it costs the host to plan a decode step.", "pkv-planning");
  app.add_option("--sequences", load.sequences, "Rows of the step");
  app.add_option("--layers", load.layers, "Layers");
  app.add_option("--kv-heads", load.kv_heads, "KV heads of a layer");
  app.add_option("--tokens", load.tokens, "Entries of every lane");
  app.add_option("--steps", load.steps, "Steps, the first 20 not counted");
  CLI11_PARSE(app, argc, argv);
  pkv::run(load);
  return 0;
}
