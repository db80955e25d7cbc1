// Cases of row_lse, column_mass and diagonal_mass: observation windows, ragged lanes, rows that see everything, and the
// whole chain from observation to the kept slots.
#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "tests/kernels/case_data.h"
#include "tests/kernels/rounded_score.h"

namespace pkv {
namespace {

struct ObserveSpec {
  std::string name;
  int32_t group = 3;
  int32_t head_dim = 64;
  int32_t page_bytes = 4096;
  std::vector<KvDtype> dtypes;  // [kv_heads]
  int32_t rows = 0;
  int32_t unseen = 0;         // as ObserveArgs has it
  int32_t length = 0;         // of the first lane
  int32_t shorter = 0;        // by so many slots is each lane than the one before
  int32_t extra_columns = 0;  // columns of `sums` that no row sees
  bool with_squares = false;
  float query_deviation = 1.0f;
};

// What the cases of a spec have in common.
class ObserveCase : public OperationCase {
 public:
  ObserveCase(const std::string& operation, ObserveSpec spec)
      : OperationCase(absl::StrCat(operation, "/", spec.name)), spec_(std::move(spec)) {}
  // Rounded only where the cpu backend multiplies in bf16: on a GPU they are as good as float32 in every mode.
  Accuracy accuracy(const BackendOptions& options) const override {
    return !options.exact && options.isa.ends_with("_bf16") ? Accuracy::kDefault : Accuracy::kExact;
  }

 protected:
  static constexpr int32_t kFirstLane = 2;  // lanes of another sequence come before

  struct Data {
    Matrix q;
    CacheContent cache;
  };
  struct Inputs {
    CaseTensor q;
    std::unique_ptr<CaseCache> cache;
  };

  const ObserveSpec& spec() const { return spec_; }
  int32_t kv_heads() const { return static_cast<int32_t>(spec_.dtypes.size()); }
  int32_t q_heads() const { return kv_heads() * spec_.group; }
  int32_t length(int32_t lane) const { return spec_.length - lane * spec_.shorter; }
  int32_t visible(int32_t lane, int64_t row) const {
    return length(lane) - std::max(0, spec_.unseen - static_cast<int32_t>(row));
  }
  int32_t columns() const { return spec_.length + spec_.extra_columns; }
  float scale() const { return 1.0f / std::sqrt(static_cast<float>(spec_.head_dim)); }

  Data make_data() const {
    auto random = rng();
    CacheSpec cache{.head_dim = spec_.head_dim, .page_bytes = spec_.page_bytes};
    const auto add_lane = [&](int32_t length, KvDtype dtype) {
      cache.lanes.push_back(
          {.filled = length, .lane = {.length = length, .write_slot = length, .visible = length, .dtype = dtype}});
    };
    for (int32_t i = 0; i < kFirstLane; ++i) add_lane(5, KvDtype::kF16);
    for (int32_t g = 0; g < kv_heads(); ++g) add_lane(length(g), spec_.dtypes[static_cast<size_t>(g)]);
    CacheContent content(random, std::move(cache));
    Matrix q =
        random_matrix(random, spec_.rows, static_cast<int64_t>(q_heads()) * spec_.head_dim, spec_.query_deviation);
    return {std::move(q), std::move(content)};
  }

  Inputs upload(Backend& backend, const Data& data) const {
    return {CaseTensor(backend, data.q, Placement::kStrided), std::make_unique<CaseCache>(backend, data.cache)};
  }

  // Any numbers near the real ones will do where log-sum-exps are an input, and sums are added to.
  Matrix make_lse(const Data& data) const {
    auto random = rng();
    const float about =
        std::log(static_cast<float>(spec_.length)) + 0.5f * spec_.query_deviation * spec_.query_deviation;
    Matrix lse = random_matrix(random, data.q.rows, q_heads(), 0.1f);
    for (float& value : lse.values) value += about;
    return lse;
  }

  ObserveArgs args(const Inputs& inputs) const {
    return {.q = inputs.q.view(),
            .kv = inputs.cache->view(),
            .first_lane = kFirstLane,
            .unseen = spec_.unseen,
            .q_heads = q_heads(),
            .kv_heads = kv_heads(),
            .scale = scale()};
  }

  // Error of the scaled scores of one query head against all its keys. Float32: some roundings of the sum of absolute
  // products. Else query and key are rounded to bfloat16 before.
  double score_error(const Data& data, const std::vector<Matrix>& keys, int64_t row, int32_t head,
                     Accuracy accuracy) const {
    const float* query = data.q.row(row) + static_cast<int64_t>(head) * spec_.head_dim;
    const int32_t lane = head / spec_.group;
    const Matrix& lane_keys = keys[static_cast<size_t>(lane)];
    double size = 0, deviation = 0;
    for (int32_t j = 0; j < visible(lane, row); ++j) {
      size = std::max(size, scale() * absolute_dot(query, lane_keys.row(j), spec_.head_dim));
      if (accuracy == Accuracy::kExact) continue;
      deviation = std::max(deviation, scale() * rounded_dot_deviation(query, lane_keys.row(j), spec_.head_dim));
    }
    return 1e-6 * (1.0 + size) + 6 * deviation;
  }
  std::vector<Matrix> all_keys(const Data& data) const {
    std::vector<Matrix> keys;
    for (int32_t g = 0; g < kv_heads(); ++g) keys.push_back(data.cache.keys(kFirstLane + g, length(g)));
    return keys;
  }
  // The largest score error of any row of one query head.
  std::vector<double> head_errors(const Data& data, Accuracy accuracy) const {
    const std::vector<Matrix> keys = all_keys(data);
    std::vector<double> errors(static_cast<size_t>(q_heads()), 0.0);
    for (int64_t row = 0; row < data.q.rows; ++row) {
      for (int32_t h = 0; h < q_heads(); ++h) {
        double& error = errors[static_cast<size_t>(h)];
        error = std::max(error, score_error(data, keys, row, h, accuracy));
      }
    }
    return errors;
  }
  // Of masses [q_heads, columns]: exp turns the absolute error of a score into a relative one, a square doubles it.
  std::vector<double> mass_tolerance(const std::vector<float>& masses, Accuracy accuracy) const {
    const std::vector<double> errors = head_errors(make_data(), accuracy);
    std::vector<double> tolerance(masses.size());
    for (size_t i = 0; i < masses.size(); ++i) {
      tolerance[i] = 2 * errors[i / static_cast<size_t>(columns())] * std::abs(masses[i]) + 1e-30;
    }
    return tolerance;
  }

 private:
  ObserveSpec spec_;
};

class RowLseCase : public ObserveCase {
 public:
  explicit RowLseCase(ObserveSpec spec) : ObserveCase("row_lse", std::move(spec)) {}

  std::unique_ptr<PreparedCase> prepare(Backend& backend) const override {
    struct State {
      Inputs inputs;
      CaseTensor lse;
    };
    auto state = std::make_shared<State>();
    const Data data = make_data();
    state->inputs = upload(backend, data);
    state->lse = CaseTensor(backend, Matrix(data.q.rows, q_heads()), Placement::kStrided);
    return make_prepared([this, state, &backend] { backend.row_lse(args(state->inputs), state->lse.view()); },
                         [state, &backend] { return Outputs{state->lse.floats(backend, "lse")}; });
  }

  std::vector<double> tolerance(const Outputs&, size_t, Accuracy accuracy) const override {
    const Data data = make_data();
    const std::vector<Matrix> keys = all_keys(data);
    std::vector<double> tolerance;
    for (int64_t row = 0; row < data.q.rows; ++row) {
      for (int32_t h = 0; h < q_heads(); ++h) tolerance.push_back(score_error(data, keys, row, h, accuracy));
    }
    return tolerance;
  }
};

class ColumnMassCase : public ObserveCase {
 public:
  explicit ColumnMassCase(ObserveSpec spec) : ObserveCase("column_mass", std::move(spec)) {}

  std::unique_ptr<PreparedCase> prepare(Backend& backend) const override {
    struct State {
      Inputs inputs;
      CaseTensor lse, sums, squares;
    };
    auto state = std::make_shared<State>();
    const Data data = make_data();
    state->inputs = upload(backend, data);
    state->lse = CaseTensor(backend, make_lse(data), Placement::kStrided);
    state->sums = CaseTensor(backend, Matrix(q_heads(), columns(), 0.001f), Placement::kStrided);
    state->squares = CaseTensor(backend, Matrix(q_heads(), columns(), 0.0f), Placement::kStrided);
    const auto run = [this, state, &backend] {
      backend.column_mass(args(state->inputs), state->lse.view(), state->sums.view(),
                          spec().with_squares ? state->squares.view() : TensorView{});
    };
    return make_prepared(run, [state, &backend] {
      return Outputs{state->sums.floats(backend, "sums"), state->squares.floats(backend, "squares")};
    });
  }

  std::vector<double> tolerance(const Outputs& expected, size_t output, Accuracy accuracy) const override {
    return mass_tolerance(expected[output].floats, accuracy);
  }
};

class DiagonalMassCase : public ObserveCase {
 public:
  explicit DiagonalMassCase(ObserveSpec spec) : ObserveCase("diagonal_mass", std::move(spec)) {}

  bool runs_on(const Backend& backend) const override { return backend.traits().sparse_attention; }

  std::unique_ptr<PreparedCase> prepare(Backend& backend) const override {
    struct State {
      Inputs inputs;
      CaseTensor lse, sums;
    };
    auto state = std::make_shared<State>();
    const Data data = make_data();
    state->inputs = upload(backend, data);
    state->lse = CaseTensor(backend, make_lse(data), Placement::kStrided);
    state->sums = CaseTensor(backend, Matrix(q_heads(), columns(), 0.001f), Placement::kStrided);
    return make_prepared(
        [this, state, &backend] { backend.diagonal_mass(args(state->inputs), state->lse.view(), state->sums.view()); },
        [state, &backend] { return Outputs{state->sums.floats(backend, "sums")}; });
  }

  // As that of columns: any order of the rows rounds a sum of positive numbers by less than what their scores are off.
  std::vector<double> tolerance(const Outputs& expected, size_t output, Accuracy accuracy) const override {
    return mass_tolerance(expected[output].floats, accuracy);
  }
};

// row_lse, column_mass, reduce_groups, pool_scores and select_top one after another, as SnapKV uses them.
class ObserveSelectCase : public ObserveCase {
 public:
  ObserveSelectCase(ObserveSpec spec, int32_t count) : ObserveCase("observe_select", std::move(spec)), count_(count) {}

  std::unique_ptr<PreparedCase> prepare(Backend& backend) const override {
    struct State {
      Inputs inputs;
      CaseTensor lse, sums, scores, pooled, counts, kept;
    };
    auto state = std::make_shared<State>();
    const Data data = make_data();
    state->inputs = upload(backend, data);
    state->lse = CaseTensor(backend, Matrix(data.q.rows, q_heads()), Placement::kDense);
    state->sums = CaseTensor(backend, Matrix(q_heads(), columns()), Placement::kDense);
    state->scores = CaseTensor(backend, Matrix(kv_heads(), columns()), Placement::kDense);
    state->pooled = CaseTensor(backend, Matrix(kv_heads(), columns()), Placement::kDense);
    state->counts = CaseTensor(backend, 1, kv_heads(), std::vector<int32_t>(static_cast<size_t>(kv_heads()), count_));
    state->kept =
        CaseTensor(backend, kv_heads(), count_, std::vector<int32_t>(static_cast<size_t>(kv_heads() * count_), -1));
    const auto run = [this, state, &backend] {
      const ObserveArgs observe = args(state->inputs);
      backend.row_lse(observe, state->lse.view());
      backend.column_mass(observe, state->lse.view(), state->sums.view(), TensorView{});
      backend.reduce_groups(state->sums.view(), GroupReduce::kMean, state->scores.view());
      backend.pool_scores(state->scores.view(), PoolKind::kMax, 7, state->pooled.view());
      backend.select_top(state->pooled.view(), 0, state->counts.view(), state->kept.view());
    };
    return make_prepared(run, [state, &backend] {
      return Outputs{state->pooled.floats(backend, "pooled"), state->kept.integers(backend, "kept")};
    });
  }

  std::vector<double> tolerance(const Outputs& expected, size_t output, Accuracy accuracy) const override {
    const std::vector<double> errors = head_errors(make_data(), accuracy);
    const double error = *std::max_element(errors.begin(), errors.end());
    return relative_tolerance(expected[output].floats, 4 * error, 0);
  }

  // The kept columns may differ where scores are as near to the cut as the tolerance.
  std::string difference(const Outputs& expected, const Outputs& actual, const Tolerances& tolerances) const override {
    Outputs floats_expected = expected, floats_actual = actual;
    floats_expected[1].exact.clear();
    floats_actual[1].exact.clear();
    std::string wrong = OperationCase::difference(floats_expected, floats_actual, tolerances);
    if (!wrong.empty()) return wrong;
    const std::vector<double>& allowed = tolerances[0];
    for (int32_t g = 0; g < kv_heads(); ++g) {
      const auto begin = [&](const Outputs& outputs) { return outputs[1].exact.begin() + g * count_; };
      const float* scores = expected[0].floats.data() + static_cast<int64_t>(g) * columns();
      double cut = INFINITY;
      for (int32_t i = 0; i < count_; ++i) cut = std::min<double>(cut, scores[begin(expected)[i]]);
      std::vector<int32_t> differing;
      std::set_symmetric_difference(begin(expected), begin(expected) + count_, begin(actual), begin(actual) + count_,
                                    std::back_inserter(differing));
      for (int32_t column : differing) {
        if (column < 0 || column >= columns()) return absl::StrCat("kept: lane ", g, " keeps column ", column);
        const double margin = 2 * allowed[static_cast<size_t>(g * columns() + column)];
        if (std::abs(scores[column] - cut) > margin) {
          return absl::StrCat("kept: lane ", g, " differs at column ", column, ", score ", scores[column], ", cut ",
                              cut);
        }
      }
    }
    return "";
  }

 private:
  int32_t count_;
};

}  // namespace

void add_observation_cases(OperationCases& cases) {
  const auto add = [&](ObserveSpec spec) {
    cases.push_back(std::make_unique<RowLseCase>(spec));
    cases.push_back(std::make_unique<ColumnMassCase>(spec));
    cases.push_back(std::make_unique<DiagonalMassCase>(spec));
    spec.with_squares = true;
    spec.name += "_squares";
    cases.push_back(std::make_unique<ColumnMassCase>(std::move(spec)));
  };
  for (const EntryFormat& format : kEntryFormats.rows) {
    const KvDtype dtype = format.id;
    const std::string name = absl::StrCat(format.name, "_");
    const std::vector<KvDtype> three(3, dtype);
    add({.name = name + "window_8", .dtypes = three, .rows = 8, .unseen = 7, .length = 333});
    add({.name = name + "window_1", .dtypes = three, .rows = 1, .unseen = 0, .length = 17, .extra_columns = 9});
    add({.name = name + "whole_prompt", .dtypes = three, .rows = 45, .unseen = 44, .length = 45});
    add({.name = name + "peaked", .dtypes = three, .rows = 8, .unseen = 7, .length = 200, .query_deviation = 8.0f});
    add({.name = name + "all_seen", .dtypes = three, .rows = 6, .length = 100, .extra_columns = 30});
    add({.name = name + "some_see_all", .dtypes = three, .rows = 21, .unseen = 9, .length = 70});
    add({.name = name + "lanes_of_their_own_lengths",
         .dtypes = three,
         .rows = 70,
         .unseen = 69,
         .length = 1100,
         .shorter = 510,
         .extra_columns = 3});
    add({.name = name + "pages_of_3072_bytes",
         .page_bytes = 3072,
         .dtypes = three,
         .rows = 9,
         .unseen = 8,
         .length = 100});
    add({.name = name + "group_1", .group = 1, .dtypes = three, .rows = 8, .unseen = 7, .length = 50});
    add({.name = name + "group_4_d128",
         .group = 4,
         .head_dim = 128,
         .dtypes = {dtype, dtype},
         .rows = 13,
         .unseen = 12,
         .length = 77});
    add({.name = name + "group_8_d80",
         .group = 8,
         .head_dim = 80,
         .dtypes = {dtype},
         .rows = 8,
         .unseen = 7,
         .length = 61});
    add({.name = name + "group_12", .group = 12, .dtypes = {dtype, dtype}, .rows = 9, .unseen = 8, .length = 70});
    add({.name = name + "depth_8000", .dtypes = three, .rows = 8, .unseen = 7, .length = 8000});
    cases.push_back(std::make_unique<ObserveSelectCase>(ObserveSpec{.name = name + "window_8",
                                                                    .dtypes = three,
                                                                    .rows = 8,
                                                                    .unseen = 7,
                                                                    .length = 1000,
                                                                    .query_deviation = 2.0f},
                                                        120));
  }
  add({.name = "mixed",
       .dtypes = {KvDtype::kF32, KvDtype::kF16, KvDtype::kK8V4},
       .rows = 8,
       .unseen = 7,
       .length = 90});
}

}  // namespace pkv
