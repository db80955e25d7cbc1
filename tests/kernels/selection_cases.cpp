// Cases of reduce_groups, pool_scores, score_entries and select_top: plateaus, ties, infinities, signed zeros, short
// rows.
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "tests/kernels/case_data.h"

namespace pkv {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Operations from scores [rows, n] to scores [out_rows, n].
struct ScoreSpec {
  std::string name;
  Matrix scores;
  int64_t out_rows = 0;
  bool exact = false;  // the result is one of the inputs
  std::function<void(Backend&, const TensorView& scores, const TensorView& out)> operation;
};

class ScoreCase : public OperationCase {
 public:
  explicit ScoreCase(ScoreSpec spec)
      : OperationCase(absl::StrCat(spec.name, "/", spec.scores.rows, "x", spec.scores.cols)), spec_(std::move(spec)) {}

  std::unique_ptr<PreparedCase> prepare(Backend& backend) const override {
    struct State {
      CaseTensor scores, out;
    };
    auto state = std::make_shared<State>();
    state->scores = CaseTensor(backend, spec_.scores, Placement::kStrided);
    state->out = CaseTensor(backend, Matrix(spec_.out_rows, spec_.scores.cols), Placement::kStrided);
    return make_prepared([this, state, &backend] { spec_.operation(backend, state->scores.view(), state->out.view()); },
                         [state, &backend] { return Outputs{state->out.floats(backend, "out")}; });
  }

  std::vector<double> tolerance(const Outputs& expected, size_t output, Accuracy) const override {
    const std::vector<float>& values = expected[output].floats;
    return spec_.exact ? relative_tolerance(values, 0, 0) : relative_tolerance(values, 1e-6, 0);  // scores are positive
  }

 private:
  ScoreSpec spec_;
};

struct SelectSpec {
  std::string name;
  Matrix scores;
  int32_t count = 0;
};

class SelectCase : public OperationCase {
 public:
  explicit SelectCase(SelectSpec spec)
      : OperationCase(
            absl::StrCat("select_top/", spec.name, "/", spec.count, "_of_", spec.scores.rows, "x", spec.scores.cols)),
        spec_(std::move(spec)) {}

  std::unique_ptr<PreparedCase> prepare(Backend& backend) const override {
    struct State {
      CaseTensor scores, kept;
    };
    auto state = std::make_shared<State>();
    state->scores = CaseTensor(backend, spec_.scores, Placement::kStrided);
    const int64_t cols = spec_.count + 3;  // columns behind the count are not touched
    state->kept = CaseTensor(backend, spec_.scores.rows, cols,
                             std::vector<int32_t>(static_cast<size_t>(spec_.scores.rows * cols), -77));
    return make_prepared(
        [this, state, &backend] { backend.select_top(state->scores.view(), spec_.count, state->kept.view()); },
        [state, &backend] { return Outputs{state->kept.integers(backend, "kept")}; });
  }

 private:
  SelectSpec spec_;
};

// Attention mass: positive, and spread over orders of magnitude.
Matrix random_scores(std::mt19937& rng, int64_t rows, int64_t cols) {
  Matrix scores = random_matrix(rng, rows, cols, 2.0f);
  for (float& value : scores.values) value = std::exp(value - 5.0f);
  return scores;
}

void add_reduce_cases(OperationCases& cases, std::mt19937& rng) {
  const std::pair<GroupReduce, const char*> kinds[] = {
      {GroupReduce::kMean, "mean"}, {GroupReduce::kMax, "max"}, {GroupReduce::kSum, "sum"}};
  for (const auto& [kind, name] : kinds) {
    for (int64_t cols : {1, 7, 1000}) {
      for (int64_t group : {1, 3, 4, 8}) {
        const int64_t kv_heads = group == 8 ? 1 : 3;
        cases.push_back(std::make_unique<ScoreCase>(
            ScoreSpec{.name = absl::StrCat("reduce_groups/", name),
                      .scores = random_scores(rng, kv_heads * group, cols),
                      .out_rows = kv_heads,
                      .exact = kind == GroupReduce::kMax,
                      .operation = [reduce = kind](Backend& backend, const TensorView& scores, const TensorView& out) {
                        backend.reduce_groups(scores, reduce, out);
                      }}));
      }
    }
  }
}

void add_pool_cases(OperationCases& cases, std::mt19937& rng) {
  const std::pair<PoolKind, const char*> kinds[] = {
      {PoolKind::kNone, "none"}, {PoolKind::kMax, "max"}, {PoolKind::kAvg, "avg"}};
  for (const auto& [kind, name] : kinds) {
    for (int64_t cols : {1, 2, 5, 100, 8000}) {
      for (int32_t kernel : {1, 3, 7, 13}) {
        cases.push_back(std::make_unique<ScoreCase>(ScoreSpec{
            .name = absl::StrCat("pool_scores/", name, "_", kernel),
            .scores = random_scores(rng, 3, cols),
            .out_rows = 3,
            .exact = kind != PoolKind::kAvg,
            .operation = [pool = kind, kernel](Backend& backend, const TensorView& scores, const TensorView& out) {
              backend.pool_scores(scores, pool, kernel, out);
            }}));
      }
    }
  }
  ScoreSpec negative{.name = "pool_scores/max_of_negative",
                     .scores = random_matrix(rng, 2, 50),
                     .out_rows = 2,
                     .exact = true,
                     .operation = [](Backend& backend, const TensorView& scores, const TensorView& out) {
                       backend.pool_scores(scores, PoolKind::kMax, 7, out);
                     }};
  for (float& value : negative.scores.values) value = -1.0f - std::abs(value);
  negative.scores.row(1)[20] = -kInfinity;
  cases.push_back(std::make_unique<ScoreCase>(std::move(negative)));
}

// score_entries works in place, so the scores are copied to where the result is looked for.
void add_scoring_cases(OperationCases& cases, std::mt19937& rng) {
  const std::pair<EntryScoring, const char*> kinds[] = {
      {{.kind = EntryScore::kPosition}, "position"},
      {{.kind = EntryScore::kHash, .seed = 7, .layer = 3}, "hash"},
      {{.kind = EntryScore::kHash, .seed = ~uint64_t{0}, .layer = 0}, "hash_of_a_large_seed"},
      {{.kind = EntryScore::kNegated}, "negated"},
      {{.kind = EntryScore::kPerQuery}, "per_query"}};
  for (const auto& [scoring, name] : kinds) {
    for (int64_t cols : {1, 100, 8000}) {
      cases.push_back(std::make_unique<ScoreCase>(
          ScoreSpec{.name = absl::StrCat("score_entries/", name),
                    .scores = random_scores(rng, 3, cols),
                    .out_rows = 3,
                    .exact = true,
                    .operation = [how = scoring](Backend& backend, const TensorView& scores, const TensorView& out) {
                      backend.copy(out, scores);
                      backend.score_entries(how, out);
                    }}));
    }
  }
  cases.push_back(std::make_unique<ScoreCase>(
      ScoreSpec{.name = "fill",
                .scores = random_scores(rng, 3, 50),
                .out_rows = 3,
                .exact = true,
                .operation = [](Backend& backend, const TensorView& scores, const TensorView& out) {
                  backend.copy(out, scores);
                  backend.fill(out.slice_cols(11, 20), -0.5f);
                }}));
}

void add_select_cases(OperationCases& cases, std::mt19937& rng) {
  const auto add = [&](std::string name, Matrix scores, int32_t count) {
    cases.push_back(std::make_unique<SelectCase>(SelectSpec{std::move(name), std::move(scores), count}));
  };
  for (int32_t count : {0, 1, 2, 63, 64, 100}) add("random", random_scores(rng, 3, 100), count);
  add("one_column", random_scores(rng, 2, 1), 1);
  add("long", random_scores(rng, 3, 8192), 128);
  add("long_many", random_scores(rng, 3, 8000), 3986);
  // Plateaus as max pooling makes them, and the cut in the middle of one.
  Matrix plateaus(4, 500);
  for (int64_t r = 0; r < 4; ++r) {
    for (int64_t c = 0; c < 500; ++c) plateaus.row(r)[c] = static_cast<float>((c / 7 * 31 + r) % 13) / 16.0f;
  }
  for (int32_t count : {1, 50, 199, 200, 201, 499}) add("plateaus", plateaus, count);
  add("all_equal", Matrix(2, 77, 0.25f), 30);
  Matrix special(2, 40, 0.0f);
  for (int64_t c = 0; c < 40; ++c) {
    const float values[] = {0.0f, -0.0f, kInfinity, -kInfinity, 1e-42f, -1.0f, 1.0f, -kInfinity};
    special.row(0)[c] = values[c % 8];
    special.row(1)[c] = c % 2 == 0 ? -0.0f : 0.0f;  // zeros of both signs are equal
  }
  for (int32_t count : {3, 7, 12, 17, 23, 35}) add("infinities_and_zeros", special, count);
}

}  // namespace

void add_selection_cases(OperationCases& cases) {
  std::mt19937 rng(11);
  add_reduce_cases(cases, rng);
  add_pool_cases(cases, rng);
  add_scoring_cases(cases, rng);
  add_select_cases(cases, rng);
}

}  // namespace pkv
