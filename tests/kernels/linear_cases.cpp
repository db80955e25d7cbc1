// Cases of linear: every weight format, both phases, one row to many, odd extents, accumulation.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "tests/kernels/case_data.h"

namespace pkv {
namespace {

struct LinearSpec {
  WeightType type = WeightType::kQ4_1;
  Phase phase = Phase::kDecode;
  bool tolerant = false;
  int64_t rows = 1, outputs = 1, inputs = 1;
  bool accumulate = false;
  Placement placement = Placement::kDense;
};

// Squares of a row's numbers, added up in groups of 32 too, and the variance of one that is rounded to int8 in its
// group. A value rounded to steps of s is off by s / sqrt(12) in the mean square.
struct Squares {
  std::vector<double> each, of_group, rounding;

  Squares(const float* row, int64_t count) {
    constexpr int64_t kGroup = 32;
    for (int64_t start = 0; start < count; start += kGroup) {
      double highest = 0, sum = 0;
      for (int64_t i = start; i < std::min(count, start + kGroup); ++i) {
        highest = std::max<double>(highest, std::abs(row[i]));
        each.push_back(static_cast<double>(row[i]) * row[i]);
        sum += each.back();
      }
      of_group.push_back(sum);
      rounding.push_back(highest / 127.0 * (highest / 127.0) / 12.0);
    }
  }
  double norm() const { return std::sqrt(std::accumulate(of_group.begin(), of_group.end(), 0.0)); }
};
std::vector<Squares> squares_of(const Matrix& matrix) {
  std::vector<Squares> rows;
  for (int64_t row = 0; row < matrix.rows; ++row) rows.emplace_back(matrix.row(row), matrix.cols);
  return rows;
}

// Squared error (variance) that rounding the activations and weights to bfloat16, or the activations to int8 in groups
// of 32, may bring to x . w.
double quantisation_variance(const Squares& x, const Squares& w) {
  constexpr double kBf16 = 0x1p-8 * 0x1p-8 / 12.0;  // steps of at most 2^-8 of the value
  const double int8 = std::inner_product(x.rounding.begin(), x.rounding.end(), w.of_group.begin(), 0.0);
  const double bf16 = 2 * kBf16 * std::inner_product(x.each.begin(), x.each.end(), w.each.begin(), 0.0);
  return std::max(int8, bf16);
}

class LinearCase : public OperationCase {
 public:
  explicit LinearCase(const LinearSpec& spec)
      : OperationCase(absl::StrCat("linear/", std::string(quant_traits(spec.type).name), "_",
                                   spec.phase == Phase::kDecode ? "decode" : "prefill",
                                   spec.tolerant ? "_tolerant" : "", spec.accumulate ? "_accumulate" : "",
                                   spec.placement == Placement::kStrided ? "_strided" : "", "/", spec.rows, "x",
                                   spec.inputs, "x", spec.outputs)),
        spec_(spec) {}

  std::unique_ptr<PreparedCase> prepare(Backend& backend) const override {
    struct State {
      Data data;
      std::unique_ptr<Weight> weight;
      CaseTensor x, out;
    };
    auto state = std::make_shared<State>();
    state->data = make_data();
    auto weight = backend.prepare_weight({.data = state->data.blocks.data(),
                                          .type = spec_.type,
                                          .rows = spec_.outputs,
                                          .cols = spec_.inputs,
                                          .tolerant = spec_.tolerant});
    if (!weight.ok()) return nullptr;
    state->weight = *std::move(weight);
    state->x = CaseTensor(backend, state->data.x, spec_.placement);
    state->out = CaseTensor(backend, state->data.out, spec_.placement);
    const LinearSpec spec = spec_;
    return make_prepared(
        [state, spec, &backend] {
          backend.linear(state->x.view(), *state->weight, spec.accumulate, spec.phase, state->out.view());
        },
        [state, &backend] { return Outputs{state->out.floats(backend, "out")}; });
  }

  std::vector<double> tolerance(const Outputs& expected, size_t output, Accuracy accuracy) const override {
    const Data data = make_data();
    Matrix weight(spec_.outputs, spec_.inputs);
    quant_traits(spec_.type).decode(data.blocks.data(), weight.values.data(), spec_.outputs * spec_.inputs);
    std::vector<double> tolerance(expected[output].floats.size());
    const std::vector<Squares> weights = squares_of(weight);
    for (int64_t r = 0; r < spec_.rows; ++r) {
      const Squares x(data.x.row(r), spec_.inputs);
      for (int64_t n = 0; n < spec_.outputs; ++n) {
        const Squares& w = weights[static_cast<size_t>(n)];
        const auto at = static_cast<size_t>(r * spec_.outputs + n);
        // Float32 sums in any order; in practice the error grows with the root of the length, which the norms have in
        // them.
        double allowed = 1e-6 * (x.norm() * w.norm() + std::abs(data.out.values[at]));
        if (accuracy == Accuracy::kDefault) {
          constexpr double kDeviations = 6;  // of a normal distribution: one in 5e8
          allowed += kDeviations * std::sqrt(quantisation_variance(x, w));
        }
        tolerance[at] = allowed;
      }
    }
    return tolerance;
  }

 private:
  struct Data {
    std::vector<uint8_t> blocks;
    Matrix x, out;  // `out` as it is before
  };
  Data make_data() const {
    auto random = rng();
    Data data;
    data.blocks = random_weight(random, spec_.type, spec_.outputs, spec_.inputs);
    data.x = random_matrix(random, spec_.rows, spec_.inputs);
    // Real activations have a few channels that are much larger than the others.
    for (int64_t r = 0; r < spec_.rows; ++r) data.x.row(r)[spec_.inputs / 3] *= 40.0f;
    data.out = random_matrix(random, spec_.rows, spec_.outputs);
    return data;
  }
  LinearSpec spec_;
};

}  // namespace

void add_linear_cases(OperationCases& cases) {
  const auto add = [&](const LinearSpec& spec) { cases.push_back(std::make_unique<LinearCase>(spec)); };
  for (const QuantTraits& traits : quant_table()) {
    const int64_t cols = traits.block_size == 1 ? 172 : traits.block_size == 32 ? 288 : 512;
    for (Phase phase : {Phase::kDecode, Phase::kPrefill}) {
      add({.type = traits.type, .phase = phase, .rows = 1, .outputs = 65, .inputs = cols});
      add({.type = traits.type, .phase = phase, .rows = 3, .outputs = 7, .inputs = cols, .accumulate = true});
      add({.type = traits.type,
           .phase = phase,
           .rows = 17,
           .outputs = 130,
           .inputs = 256,
           .placement = Placement::kStrided});
      add({.type = traits.type,
           .phase = phase,
           .rows = 130,
           .outputs = 33,
           .inputs = 256,
           .accumulate = true,
           .placement = Placement::kStrided});
    }
  }
  // With tolerant weights: outputs, rows and inputs that fill no tile, block of rows or chunk of the depth.
  for (const QuantTraits& traits : quant_table()) {
    const int64_t cols = traits.block_size == 1 ? 172 : traits.block_size == 32 ? 288 : 512;
    const auto add_tolerant = [&](int64_t rows, int64_t outputs, int64_t inputs, bool accumulate, Placement placement) {
      add({.type = traits.type,
           .phase = Phase::kPrefill,
           .tolerant = true,
           .rows = rows,
           .outputs = outputs,
           .inputs = inputs,
           .accumulate = accumulate,
           .placement = placement});
    };
    add_tolerant(13, 49, cols, false, Placement::kDense);
    add_tolerant(5, 7, cols, true, Placement::kStrided);
    add_tolerant(131, 33, 4608, true, Placement::kStrided);
  }
  add({.type = WeightType::kF32, .rows = 2, .outputs = 3, .inputs = 1});
  add({.type = WeightType::kF32, .phase = Phase::kPrefill, .rows = 5, .outputs = 1, .inputs = 37});
  // The layers of the default model: q/k/v together, feed-forward up and down, and the output head.
  for (int64_t rows : {1, 4}) {
    add({.type = WeightType::kQ4_1, .rows = rows, .outputs = 1536, .inputs = 576});
    add({.type = WeightType::kQ4_1, .rows = rows, .outputs = 576, .inputs = 1536, .accumulate = true});
    add({.type = WeightType::kQ8_0, .rows = rows, .outputs = 8192, .inputs = 576});
  }
  add({.type = WeightType::kQ4_1, .phase = Phase::kPrefill, .rows = 256, .outputs = 1536, .inputs = 576});
  add({.type = WeightType::kQ4_1,
       .phase = Phase::kPrefill,
       .rows = 256,
       .outputs = 576,
       .inputs = 1536,
       .accumulate = true});
}

}  // namespace pkv
