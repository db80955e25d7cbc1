// Cases of reduce_groups, weigh_groups, merge_scores, pool_scores, score_entries and selection: plateaus, ties,
// infinities, signed zeros, short rows.
#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/check.h"
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

// One layer's selection, with what decides it.
struct SelectSpec {
  std::string name;
  Matrix scores;
  int32_t window = 0;
  std::vector<int32_t> counts;  // of every lane
};

constexpr int32_t kUntouched = -77;

CaseTensor untouched(Backend& backend, int64_t rows, int64_t cols) {
  return {backend, rows, cols, std::vector<int32_t>(static_cast<size_t>(rows * cols), kUntouched)};
}

class SelectCase : public OperationCase {
 public:
  explicit SelectCase(SelectSpec spec)
      : OperationCase(absl::StrCat("select_top/", spec.name, "/", absl::StrJoin(spec.counts, "_"), "_of_",
                                   spec.scores.cols, "_window_", spec.window)),
        spec_(std::move(spec)) {}

  std::unique_ptr<PreparedCase> prepare(Backend& backend) const override {
    struct State {
      CaseTensor scores, counts, kept;
    };
    auto state = std::make_shared<State>();
    state->scores = CaseTensor(backend, spec_.scores, Placement::kStrided);
    state->counts = CaseTensor(backend, 1, spec_.scores.rows, spec_.counts);
    const int32_t largest = *std::max_element(spec_.counts.begin(), spec_.counts.end());
    state->kept = untouched(backend, spec_.scores.rows, largest + 3);
    return make_prepared(
        [this, state, &backend] {
          backend.select_top(state->scores.view(), spec_.window, state->counts.view(), state->kept.view());
        },
        [state, &backend] { return Outputs{state->kept.integers(backend, "kept")}; });
  }

 private:
  SelectSpec spec_;
};

struct ShareSpec {
  std::string name;
  Matrix scores;
  LayerShare share;
};

class ShareCase : public OperationCase {
 public:
  explicit ShareCase(ShareSpec spec)
      : OperationCase(absl::StrCat("share_layer/", spec.name, "/", spec.share.total, "_of_", spec.scores.rows, "x",
                                   spec.scores.cols, "_window_", spec.share.window, "_from_", spec.share.smallest_lane,
                                   "_to_", spec.share.largest_lane)),
        spec_(std::move(spec)) {}

  std::unique_ptr<PreparedCase> prepare(Backend& backend) const override {
    struct State {
      CaseTensor scores, counts;
    };
    auto state = std::make_shared<State>();
    state->scores = CaseTensor(backend, spec_.scores, Placement::kStrided);
    state->counts = untouched(backend, 1, spec_.scores.rows);
    return make_prepared(
        [this, state, &backend] { backend.share_layer(state->scores.view(), spec_.share, state->counts.view()); },
        [state, &backend] { return Outputs{state->counts.integers(backend, "counts")}; });
  }

 private:
  ShareSpec spec_;
};

// count_for_recall, select_top and recall one after another: two ways to the same recalls.
struct RecallSpec {
  std::string name;
  Matrix scores, mass;
  RecallShare share;
};

class RecallCase : public OperationCase {
 public:
  explicit RecallCase(RecallSpec spec)
      : OperationCase(absl::StrCat("recall/", spec.name, "/", spec.share.recall, "_of_", spec.scores.rows, "x",
                                   spec.scores.cols, "_window_", spec.share.window, "_to_", spec.share.largest_lane)),
        spec_(std::move(spec)) {}

  std::unique_ptr<PreparedCase> prepare(Backend& backend) const override {
    struct State {
      CaseTensor scores, mass, counts, kept;
      Tensor reached, recalls;
    };
    auto state = std::make_shared<State>();
    const int64_t lanes = spec_.scores.rows;
    state->scores = CaseTensor(backend, spec_.scores, Placement::kStrided);
    state->mass = CaseTensor(backend, spec_.mass, Placement::kStrided);
    state->counts = untouched(backend, 1, lanes);
    state->kept = untouched(backend, lanes, spec_.share.largest_lane + 3);
    auto reached = backend.allocate(1, lanes, DType::kF64), recalls = backend.allocate(1, lanes, DType::kF64);
    PKV_CHECK(reached.ok() && recalls.ok(), "no memory for a test tensor");
    state->reached = *std::move(reached);
    state->recalls = *std::move(recalls);
    const auto run = [this, state, &backend] {
      backend.count_for_recall(state->scores.view(), state->mass.view(), spec_.share, state->counts.view(),
                               state->reached.view());
      backend.select_top(state->scores.view(), spec_.share.window, state->counts.view(), state->kept.view());
      backend.recall(state->mass.view(), state->kept.view(), state->counts.view(), state->recalls.view());
    };
    return make_prepared(run, [state, &backend] {
      const auto as_floats = [&](const Tensor& tensor, std::string name) {
        std::vector<double> values(static_cast<size_t>(tensor.view().cols));
        backend.fetch({values.data(), tensor.view()});
        return Output{.name = std::move(name), .floats = std::vector<float>(values.begin(), values.end())};
      };
      return Outputs{state->counts.integers(backend, "counts"), state->kept.integers(backend, "kept"),
                     as_floats(state->reached, "reached"), as_floats(state->recalls, "recalls")};
    });
  }

  std::vector<double> tolerance(const Outputs& expected, size_t output, Accuracy) const override {
    return relative_tolerance(expected[output].floats, 1e-7, 0);
  }

 private:
  RecallSpec spec_;
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

// The first half of the rows are squares, the second weights.
void add_weigh_cases(OperationCases& cases, std::mt19937& rng) {
  for (int64_t cols : {1, 7, 1000, 8000}) {
    for (int64_t group : {1, 3, 7}) {
      const int64_t heads = 2 * group;
      const auto weigh = [heads](Backend& backend, const TensorView& scores, const TensorView& out) {
        backend.weigh_groups(scores.slice_rows(0, heads), scores.slice_rows(heads, heads), 0.125f, out);
      };
      cases.push_back(std::make_unique<ScoreCase>(ScoreSpec{.name = absl::StrCat("weigh_groups/of_", group),
                                                            .scores = random_scores(rng, 2 * heads, cols),
                                                            .out_rows = 2,
                                                            .operation = weigh}));
    }
  }
}

// The first half of the rows are merged with the second, where the result is looked for.
void add_merge_cases(OperationCases& cases, std::mt19937& rng) {
  for (const bool by_mean : {false, true}) {
    const auto merge = [by_mean](Backend& backend, const TensorView& scores, const TensorView& out) {
      backend.copy(out, scores.slice_rows(0, out.rows));
      backend.merge_scores(scores.slice_rows(out.rows, out.rows), by_mean, out);
    };
    const std::string name = by_mean ? "merge_scores/by_mean" : "merge_scores/raw";
    for (int64_t cols : {1, 7, 1000, 8000}) {
      cases.push_back(std::make_unique<ScoreCase>(ScoreSpec{
          .name = name, .scores = random_scores(rng, 6, cols), .out_rows = 3, .exact = !by_mean, .operation = merge}));
    }
    ScoreSpec zeros{.name = name + "_zeros", .scores = random_scores(rng, 4, 50), .out_rows = 2, .operation = merge};
    for (int64_t row : {0, 1, 2}) std::fill_n(zeros.scores.row(row), 50, 0.0f);  // beside zeros, and beside scores
    cases.push_back(std::make_unique<ScoreCase>(std::move(zeros)));
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

// Plateaus as max pooling makes them.
Matrix plateaus() {
  Matrix scores(4, 500);
  for (int64_t r = 0; r < 4; ++r) {
    for (int64_t c = 0; c < 500; ++c) scores.row(r)[c] = static_cast<float>((c / 7 * 31 + r) % 13) / 16.0f;
  }
  return scores;
}

Matrix infinities_and_zeros() {
  Matrix special(2, 40, 0.0f);
  for (int64_t c = 0; c < 40; ++c) {
    const float values[] = {0.0f, -0.0f, kInfinity, -kInfinity, 1e-42f, -1.0f, 1.0f, -kInfinity};
    special.row(0)[c] = values[c % 8];
    special.row(1)[c] = c % 2 == 0 ? -0.0f : 0.0f;  // zeros of both signs are equal
  }
  return special;
}

void add_select_cases(OperationCases& cases, std::mt19937& rng) {
  const auto add = [&](std::string name, const Matrix& scores, std::vector<int32_t> counts, int32_t window = 0) {
    if (counts.size() == 1) counts.resize(static_cast<size_t>(scores.rows), counts.front());
    cases.push_back(std::make_unique<SelectCase>(
        SelectSpec{.name = std::move(name), .scores = scores, .window = window, .counts = std::move(counts)}));
  };
  for (int32_t count : {0, 1, 2, 63, 64, 100}) add("random", random_scores(rng, 3, 100), {count});
  add("one_column", random_scores(rng, 2, 1), {1});
  add("long", random_scores(rng, 3, 8192), {128});
  add("long_many", random_scores(rng, 3, 8000), {3986});
  add("lanes_of_their_own", random_scores(rng, 4, 1000), {8, 1000, 9, 500}, 8);
  add("everything", random_scores(rng, 3, 100), {100}, 100);
  for (int32_t count : {1, 50, 199, 200, 201, 499}) add("plateaus", plateaus(), {count});
  for (int32_t count : {7, 200, 500}) add("plateaus", plateaus(), {count}, 7);
  add("all_equal", Matrix(2, 77, 0.25f), {30});
  for (int32_t count : {3, 7, 12, 17, 23, 35}) add("infinities_and_zeros", infinities_and_zeros(), {count});
}

void add_share_cases(OperationCases& cases, std::mt19937& rng) {
  const auto add = [&](const std::string& name, const Matrix& scores, const LayerShare& share) {
    cases.push_back(std::make_unique<ShareCase>(ShareSpec{.name = name, .scores = scores, .share = share}));
  };
  const auto add_all = [&](const std::string& name, const Matrix& scores, int32_t window) {
    const int64_t lanes = scores.rows;
    const auto n = static_cast<int32_t>(scores.cols);
    for (const int32_t average : {window, window + 1, (window + n) / 2, n - 1, n}) {
      for (const int32_t largest : {average, std::min(n, 2 * average), n}) {
        for (const int32_t smallest : {window, (window + average) / 2, average}) {
          const LayerShare share{.window = window,
                                 .smallest_lane = smallest,
                                 .largest_lane = std::max(smallest, largest),
                                 .total = lanes * average + (average < n ? 1 : 0)};
          add(absl::StrCat(name, "_", cases.size()), scores, share);
        }
      }
    }
  };
  add_all("random", random_scores(rng, 3, 100), 8);
  add_all("plateaus", plateaus(), 0);
  add_all("all_equal", Matrix(3, 20, 0.25f), 2);
  add_all("infinities_and_zeros", infinities_and_zeros(), 5);
  add("long", random_scores(rng, 8, 8192), {.window = 8, .smallest_lane = 12, .largest_lane = 2048, .total = 8192});
  add("shorter_than_the_window", random_scores(rng, 3, 5),
      {.window = 5, .smallest_lane = 5, .largest_lane = 5, .total = 15});
}

void add_recall_cases(OperationCases& cases, std::mt19937& rng) {
  const auto add = [&](const std::string& name, const Matrix& scores, const RecallShare& share) {
    const Matrix mass = random_scores(rng, scores.rows, scores.cols);
    cases.push_back(
        std::make_unique<RecallCase>(RecallSpec{.name = name, .scores = scores, .mass = mass, .share = share}));
  };
  for (const double recall : {1e-6, 0.5, 0.9, 1.0}) {
    add("random", random_scores(rng, 3, 100), {.window = 8, .largest_lane = 100, .recall = recall});
    add("not_reached", random_scores(rng, 3, 100), {.window = 8, .largest_lane = 20, .recall = recall});
    add("plateaus", plateaus(), {.window = 7, .largest_lane = 500, .recall = recall});
    add("infinities", infinities_and_zeros(), {.window = 1, .largest_lane = 40, .recall = recall});
  }
  add("long", random_scores(rng, 3, 8000), {.window = 8, .largest_lane = 8000, .recall = 0.95});
}

}  // namespace

void add_selection_cases(OperationCases& cases) {
  std::mt19937 rng(11);
  add_reduce_cases(cases, rng);
  add_weigh_cases(cases, rng);
  add_merge_cases(cases, rng);
  add_pool_cases(cases, rng);
  add_scoring_cases(cases, rng);
  add_select_cases(cases, rng);
  add_share_cases(cases, rng);
  add_recall_cases(cases, rng);
}

}  // namespace pkv
