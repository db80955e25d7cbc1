// funnel: which rows it observes, and what whole prompts keep, against the rules of docs/policies.md written down once
// more in float64.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "gmock/gmock.h"
#include "server/cache/stored_entries.h"
#include "tests/support/backend_array.h"
#include "tests/support/tested_backend.h"
#include "tests/unit/policy/policy_specs.h"
#include "tests/unit/policy/prompt_run.h"
#include "tests/unit/policy/scored_layer.h"

namespace pkv {
namespace {

PolicySpec funnel(int32_t budget, int32_t window, int32_t rows) {
  PolicySpec spec = spec_of(PolicyKind::kFunnel, budget);
  spec.params.window_tokens = window;
  spec.kv_dtype = KvDtype::kF32;
  spec.params.observed_rows = rows;
  return spec;
}

TEST(FunnelRows, AreSpreadOverThePromptAndTurnedBehindIt) {
  const auto policy = policy_of(funnel(100, 32, 256));
  const std::vector<ObservationRow> rows = policy->observe(2000);
  ASSERT_EQ(rows.size(), 256u + 32u);
  EXPECT_EQ(rows[0].prompt_row, 64);
  EXPECT_EQ(rows[0].position, 2000);
  EXPECT_EQ(rows[1].prompt_row, 64 + 1935 / 255);
  EXPECT_EQ(rows[1].position, 2037);
  EXPECT_EQ(rows[2].position, 2010);  // 74 mod 64
  EXPECT_EQ(rows[255].prompt_row, 1999);
  for (size_t i = 0; i < 32; ++i) {
    EXPECT_EQ(rows[256 + i].prompt_row, 1968 + static_cast<int32_t>(i));
    EXPECT_EQ(rows[256 + i].position, rows[256 + i].prompt_row);
  }
}

TEST(FunnelRows, OfShortPromptsAreFewer) {
  const auto policy = policy_of(funnel(100, 32, 256));
  EXPECT_EQ(policy->observe(300).size(), 236u + 32u);
  EXPECT_EQ(policy->observe(65).size(), 1u + 32u);
  EXPECT_EQ(policy->observe(65)[0].prompt_row, 16);
  EXPECT_EQ(policy->observe(64).size(), 32u);
  EXPECT_EQ(policy->observe(20).size(), 20u);
}

// ---- selections

constexpr float kInvFreq[] = {0.5f, 0.125f, 0.03125f};  // of 8 dimensions 6 turn, neighbours by pairs
constexpr int32_t kDims = 8;

struct FunnelInput {
  LayerInput layer;
  std::vector<float> v;        // [n, Hkv * d]
  std::vector<float> factors;  // [Hq * d, d], lower triangular
};

std::vector<double> turned_query(const LayerInput& layer, const ObservationRow& row, int32_t head) {
  const std::span<const float> q = layer.query(row.prompt_row, head);
  std::vector<double> query(q.begin(), q.end());
  for (size_t pair = 0; pair < 3; ++pair) {
    const double angle = (row.position - row.prompt_row) * static_cast<double>(kInvFreq[pair]);
    const double a = query[2 * pair], b = query[2 * pair + 1];
    query[2 * pair] = a * std::cos(angle) - b * std::sin(angle);
    query[2 * pair + 1] = a * std::sin(angle) + b * std::cos(angle);
  }
  return query;
}

// Root mean square over rows and query heads of attention times value norm, pooled over five, of the first `past`
// slots.
std::vector<double> pooled_set(const FunnelInput& input, const std::vector<ObservationRow>& rows, int32_t kv_head,
                               int32_t past) {
  const LayerInput& layer = input.layer;
  const int32_t n = layer.tokens, group = layer.q_heads / layer.kv_heads;
  std::vector<double> squares(static_cast<size_t>(past), 0.0);
  for (int32_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
    for (const ObservationRow& row : rows) {
      const std::vector<double> query = turned_query(layer, row, head);
      std::vector<double> weights;
      for (int32_t slot = 0; slot < std::min(n, row.position + 1); ++slot) {
        const std::span<const float> key = layer.key(slot, kv_head);
        weights.push_back(
            std::exp(std::inner_product(key.begin(), key.end(), query.begin(), 0.0) / std::sqrt(1.0 * kDims)));
      }
      const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
      for (int32_t slot = 0; slot < past; ++slot) {
        double norm = 0;
        for (int32_t column = 0; column < kDims; ++column) {
          double product = 0;
          for (int32_t i = 0; i < kDims; ++i) {
            product +=
                static_cast<double>(input.v[static_cast<size_t>((slot * layer.kv_heads + kv_head) * kDims + i)]) *
                input.factors[static_cast<size_t>((head * kDims + i) * kDims + column)];
          }
          norm += product * product;
        }
        const double attention =
            static_cast<size_t>(slot) < weights.size() ? weights[static_cast<size_t>(slot)] / sum : 0;
        squares[static_cast<size_t>(slot)] += attention * attention * norm / static_cast<double>(rows.size()) / group;
      }
    }
  }
  std::vector<double> pooled;
  for (int32_t slot = 0; slot < past; ++slot) {
    const auto first = squares.begin() + std::max(0, slot - 2), end = squares.begin() + std::min(past, slot + 3);
    pooled.push_back(std::sqrt(*std::max_element(first, end)));
  }
  return pooled;
}

std::vector<int32_t> plain_lane(const FunnelInput& input, const PolicyParams& params, int32_t kv_head, int32_t budget) {
  const int32_t n = input.layer.tokens, past = n - params.window_tokens;
  std::vector<ObservationRow> future, newest;
  const int32_t count = std::min(params.observed_rows, n - 64), first = std::min(64, n / 4);
  for (int32_t k = 0; k < count; ++k) {
    const auto at = static_cast<int32_t>(std::floor(static_cast<double>(k) * (n - 1 - first) / (count - 1)));
    future.push_back({first + at, n + 37 * k % 64});
  }
  for (int32_t row = n - 8; row < n; ++row) newest.push_back({row, row});
  const std::vector<double> a = pooled_set(input, newest, kv_head, past), b = pooled_set(input, future, kv_head, past);
  const double a_mean = std::accumulate(a.begin(), a.end(), 0.0) / past;
  const double b_mean = std::accumulate(b.begin(), b.end(), 0.0) / past;
  std::vector<float> scores(static_cast<size_t>(n), 0.0f);
  for (size_t slot = 0; slot < a.size(); ++slot) {
    scores[slot] = static_cast<float>(std::max(a[slot] / a_mean, b[slot] / b_mean));
  }
  return best_entries(scores, budget, params.window_tokens, params.sink_tokens);
}

FunnelInput random_input(std::mt19937& random, int32_t tokens) {
  const auto numbers = [&](size_t count, float scale) {
    std::vector<float> values(count);
    for (float& value : values) value = scale * (static_cast<float>(random() % 65536) / 32768.0f - 1.0f);
    return values;
  };
  FunnelInput input;
  input.layer = {.tokens = tokens, .q_heads = 6, .kv_heads = 2, .head_dim = kDims};
  input.layer.q = numbers(static_cast<size_t>(tokens * 6 * kDims), 4.0f);
  input.layer.k = numbers(static_cast<size_t>(tokens * 2 * kDims), 1.0f);
  input.v = numbers(input.layer.k.size(), 1.0f);
  input.factors = numbers(6 * kDims * kDims, 1.0f);
  for (size_t row = 0; row < 6 * kDims; ++row) {
    for (size_t column = row % kDims + 1; column < kDims; ++column) input.factors[row * kDims + column] = 0.0f;
  }
  return input;
}

constexpr CacheGeometry kGeometry{.layers = 1, .kv_heads = 2, .head_dim = kDims, .page_bytes = 64 * 5};

// A layer of one prompt that went through a cache.
struct FunnelRun {
  FunnelRun(Backend& backend, const FunnelInput& input, const PolicySpec& spec)
      : inv_freq(backend, std::vector<float>(std::begin(kInvFreq), std::end(kInvFreq))),
        plan(planned(spec,
                     {.geometry = kGeometry, .q_heads = 6, .prompt_tokens = input.layer.tokens, .max_tokens = 1})) {
    auto made = KvCache::create(backend, kGeometry, uint64_t{1} << 22);
    EXPECT_TRUE(made.ok());
    cache = *std::move(made);
    auto tensor = backend.allocate(6 * kDims, kDims, DType::kF32);
    EXPECT_TRUE(tensor.ok());
    factors = *std::move(tensor);
    backend.upload(factors.view(), input.factors.data());
    prompt = std::make_unique<PromptRun>(
        backend, *cache, plan,
        Compressor::Options{.geometry = kGeometry,
                            .q_heads = 6,
                            .prompt_tokens = input.layer.tokens,
                            .rope = {.inv_freq = inv_freq.data(), .pairs = 3, .head_dim = kDims, .magnitude = 2.0f},
                            .value_factors = factors.view()},
        spec.kv_dtype);
    outcome = prompt->run_layer(0, {.q = input.layer.q, .k = input.layer.k, .v = input.v}, 32);
  }
  std::vector<float> stored(StoredPart part, int32_t head) const {
    std::vector<int32_t> slots(static_cast<size_t>(outcome.kept[static_cast<size_t>(head)]));
    std::iota(slots.begin(), slots.end(), 0);
    return read_stored(*cache, {.sequence = prompt->sequence(), .kv_head = head}, part, slots);
  }

  test::BackendArray<float> inv_freq;
  Planned plan;
  std::unique_ptr<KvCache> cache;
  Tensor factors;
  std::unique_ptr<PromptRun> prompt;
  LayerOutcome outcome;
};

TEST(FunnelSelection, EqualsThePlainRules) {
  std::mt19937 random(71);
  const std::unique_ptr<Backend> backend = test::make_tested_backend();
  for (int round = 0; round < 12; ++round) {
    const FunnelInput input = random_input(random, 90 + 11 * round);
    const PolicySpec spec = funnel(30 + round, 9 + round % 4, 20 + 3 * round);
    const FunnelRun run(*backend, input, spec);
    const LayerOutcome& outcome = run.outcome;
    EXPECT_EQ(outcome.kept, run.plan.plan.lane_budgets);
    for (int32_t head = 0; head < 2; ++head) {
      const auto lane = static_cast<size_t>(head);
      EXPECT_EQ(outcome.kept_positions[lane], plain_lane(input, spec.params, head, outcome.kept[lane]))
          << "round " << round << " head " << head;
      EXPECT_GT(outcome.recall[lane], 0.0);
      EXPECT_LE(outcome.recall[lane], 1.0 + 1e-9);
    }
  }
}

// ---- refitted values

// What a query that is turned to `position` gets from entries [first, first + count) of `keys` and `values` [count, d].
std::vector<double> attended(const std::vector<double>& query, std::span<const float> keys,
                             std::span<const float> values, size_t count) {
  std::vector<double> out(kDims, 0.0);
  double sum = 0;
  for (size_t j = 0; j < count; ++j) {
    const std::span<const float> key = keys.subspan(j * kDims, kDims);
    const double weight =
        std::exp(std::inner_product(key.begin(), key.end(), query.begin(), 0.0) / std::sqrt(1.0 * kDims));
    sum += weight;
    for (size_t i = 0; i < kDims; ++i) out[i] += weight * static_cast<double>(values[j * kDims + i]);
  }
  for (double& x : out) x /= sum;
  return out;
}

// How far the chosen rows' attention to the run's lane is from that to the whole lane, squared.
double lane_error(const FunnelInput& input, const FunnelRun& run, const PolicySpec& spec, int32_t head) {
  const int32_t n = input.layer.tokens;
  std::vector<float> keys, values;
  for (int32_t slot = 0; slot < n; ++slot) {
    const std::span<const float> key = input.layer.key(slot, head);
    keys.insert(keys.end(), key.begin(), key.end());
    const auto value = input.v.begin() + (slot * 2 + head) * kDims;
    values.insert(values.end(), value, value + kDims);
  }
  const std::vector<float> kept_keys = run.stored(StoredPart::kKeys, head);
  const std::vector<float> kept_values = run.stored(StoredPart::kValues, head);
  const std::vector<ObservationRow> rows = policy_of(spec)->observe(n);
  double error = 0;
  for (size_t row = 0; row < rows.size(); row += 3) {
    const int32_t unseen = std::max(0, n - 1 - rows[row].position);
    for (int32_t query_head = 3 * head; query_head < 3 * head + 3; ++query_head) {
      const std::vector<double> query = turned_query(input.layer, rows[row], query_head);
      const auto whole = attended(query, keys, values, static_cast<size_t>(n - unseen));
      const auto kept = attended(query, kept_keys, kept_values, kept_keys.size() / kDims - static_cast<size_t>(unseen));
      for (size_t i = 0; i < kDims; ++i) error += (whole[i] - kept[i]) * (whole[i] - kept[i]);
    }
  }
  return error;
}

TEST(FunnelRefit, LeavesKeysAndBringsTheRowsNearerToTheWholeLane) {
  std::mt19937 random(72);
  const std::unique_ptr<Backend> backend = test::make_tested_backend();
  for (const KvDtype format : {KvDtype::kF32, KvDtype::kF16, KvDtype::kBF16, KvDtype::kK8V4}) {
    const FunnelInput input = random_input(random, 160);
    PolicySpec spec = funnel(60, 16, 60);
    spec.kv_dtype = format;
    const FunnelRun plain(*backend, input, spec);
    spec.params.refit_values = true;
    const FunnelRun refitted(*backend, input, spec);
    EXPECT_EQ(refitted.outcome.kept_positions, plain.outcome.kept_positions);
    for (int32_t head = 0; head < 2; ++head) {
      SCOPED_TRACE(std::string(entry_format(format).name) + " head " + std::to_string(head));
      EXPECT_EQ(refitted.stored(StoredPart::kKeys, head), plain.stored(StoredPart::kKeys, head));
      // Rounding refitted values takes part of it back.
      const double most = entry_format(format).has_codes() ? 0.95 : 0.5;
      EXPECT_LT(lane_error(input, refitted, spec, head), most * lane_error(input, plain, spec, head));
    }
  }
}

}  // namespace
}  // namespace pkv
