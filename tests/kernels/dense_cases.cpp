// Cases of embed, rms_norm, add_bias, rope, turn_rows and silu_mul. All of them are float32 in every mode.
#include <cmath>

#include "absl/strings/str_cat.h"
#include "tests/kernels/case_data.h"

namespace pkv {
namespace {

// A few float32 roundings, and the error of a vectorised exp, sin or cos.
constexpr double kRelative = 2e-6;
// What a backend may flush to zero.
constexpr double kTiny = 1e-30;

std::string placement_name(Placement placement) { return placement == Placement::kStrided ? "strided" : "dense"; }

// ---- embed

class EmbedCase : public OperationCase {
 public:
  EmbedCase(WeightType type, int64_t cols, Placement placement)
      : OperationCase(
            absl::StrCat("embed/", std::string(quant_traits(type).name), "/", placement_name(placement), "_", cols)),
        type_(type),
        cols_(cols),
        placement_(placement) {}

  std::unique_ptr<PreparedCase> prepare(Backend& backend) const override {
    struct State {
      std::vector<uint8_t> blocks;
      std::unique_ptr<Weight> table;
      BackendArray<int32_t> ids;
      CaseTensor out;
    };
    constexpr int32_t kRows = 37;
    auto state = std::make_shared<State>();
    auto random = rng();
    state->blocks = random_weight(random, type_, kRows, cols_);
    auto table = backend.prepare_weight({.data = state->blocks.data(), .type = type_, .rows = kRows, .cols = cols_});
    if (!table.ok()) return nullptr;
    state->table = *std::move(table);
    state->ids = {backend, {0, kRows - 1, 5, 5, 17, 1}};
    state->out = CaseTensor(backend, Matrix(state->ids.size(), cols_), placement_);
    return make_prepared([state, &backend] { backend.embed(*state->table, state->ids.data(), state->out.view()); },
                         [state, &backend] { return Outputs{state->out.floats(backend, "out")}; });
  }

  std::vector<double> tolerance(const Outputs& expected, size_t output, Accuracy accuracy) const override {
    // Outside exact mode a table of floats may be kept as bfloat16; a format with scales is decoded, at most with an
    // FMA.
    const bool floats = quant_traits(type_).block_size == 1;
    const double relative = accuracy == Accuracy::kDefault && floats ? 0x1p-8 : 1e-7;
    return relative_tolerance(expected[output].floats, relative, floats ? 0 : 1e-7);
  }

 private:
  WeightType type_;
  int64_t cols_;
  Placement placement_;
};

// ---- operations on rows of one or two tensors

using RowOperation =
    std::function<void(Backend&, const TensorView& first, const TensorView& second, const TensorView& out)>;

// out = operation(first, second); with `in_place` the result is in `first`.
struct RowSpec {
  std::string name;
  Matrix first, second;
  int64_t out_cols = 0;
  bool in_place = false;
  Placement placement = Placement::kDense;
  RowOperation operation;
};

class RowCase : public OperationCase {
 public:
  explicit RowCase(RowSpec spec)
      : OperationCase(
            absl::StrCat(spec.name, "/", placement_name(spec.placement), "_", spec.first.rows, "x", spec.first.cols)),
        spec_(std::move(spec)) {}

  std::unique_ptr<PreparedCase> prepare(Backend& backend) const override {
    struct State {
      CaseTensor first, second, out;
    };
    auto state = std::make_shared<State>();
    state->first = CaseTensor(backend, spec_.first, spec_.placement);
    // A vector of gains or biases is one dense row.
    state->second = CaseTensor(backend, spec_.second, spec_.second.rows == 1 ? Placement::kDense : spec_.placement);
    state->out = CaseTensor(backend, Matrix(spec_.first.rows, spec_.out_cols), spec_.placement);
    const RowSpec* spec = &spec_;
    return make_prepared(
        [state, spec, &backend] {
          spec->operation(backend, state->first.view(), state->second.view(), state->out.view());
        },
        [state, spec, &backend] {
          Outputs outputs = {state->first.floats(backend, "first"), state->out.floats(backend, "out")};
          return outputs;
        });
  }

  std::vector<double> tolerance(const Outputs& expected, size_t output, Accuracy /*accuracy*/) const override {
    const std::vector<float>& values = expected[output].floats;
    if (output == 0 && !spec_.in_place) return relative_tolerance(values, 0, 0);  // an input is not touched
    return value_tolerance(values);
  }

 protected:
  virtual std::vector<double> value_tolerance(const std::vector<float>& values) const {
    return relative_tolerance(values, kRelative, kTiny);
  }
  const RowSpec& spec() const { return spec_; }

 private:
  RowSpec spec_;
};

// A sum of two terms is judged by the larger of them.
class BiasCase : public RowCase {
 public:
  using RowCase::RowCase;

 protected:
  std::vector<double> value_tolerance(const std::vector<float>& values) const override {
    std::vector<double> tolerance(values.size());
    for (size_t i = 0; i < values.size(); ++i)
      tolerance[i] = 1e-7 * (std::abs(spec().first.values[i]) + std::abs(values[i]));
    return tolerance;
  }
};

void add_row_cases(OperationCases& cases) {
  std::mt19937 rng(7);
  struct Shape {
    int64_t rows, cols;
  };
  for (Shape shape : {Shape{1, 64}, {3, 576}, {5, 100}, {2, 4096}, {130, 576}, {1, 7}}) {
    const Placement placement = shape.rows % 2 == 1 ? Placement::kStrided : Placement::kDense;
    const auto random = [&](float deviation) { return random_matrix(rng, shape.rows, shape.cols, deviation); };
    RowSpec norm{.name = "rms_norm/values",
                 .first = random(3.0f),
                 .second = random_matrix(rng, 1, shape.cols),
                 .out_cols = shape.cols,
                 .placement = placement,
                 .operation = [](Backend& backend, const TensorView& x, const TensorView& gain, const TensorView& out) {
                   backend.rms_norm(x, gain, 1e-5f, out);
                 }};
    cases.push_back(std::make_unique<RowCase>(norm));
    RowSpec in_place = norm;
    in_place.name = "rms_norm/in_place";
    in_place.out_cols = 1;
    in_place.in_place = true;
    in_place.operation = [](Backend& backend, const TensorView& x, const TensorView& gain, const TensorView&) {
      backend.rms_norm(x, gain, 1e-5f, x);
    };
    cases.push_back(std::make_unique<RowCase>(std::move(in_place)));
    norm.name = "rms_norm/zeros_and_small";
    std::fill_n(norm.first.row(0), shape.cols, 0.0f);
    if (shape.rows > 1) std::fill_n(norm.first.row(1), shape.cols, 1e-4f);  // eps matters
    cases.push_back(std::make_unique<RowCase>(std::move(norm)));

    cases.push_back(std::make_unique<BiasCase>(
        RowSpec{.name = "add_bias/values",
                .first = random(1.0f),
                .second = random_matrix(rng, 1, shape.cols),
                .out_cols = 1,
                .in_place = true,
                .placement = placement,
                .operation = [](Backend& backend, const TensorView& x, const TensorView& bias, const TensorView&) {
                  backend.add_bias(x, bias);
                }}));

    RowSpec silu{.name = "silu_mul/values",
                 .first = random(3.0f),
                 .second = random(1.0f),
                 .out_cols = 1,
                 .in_place = true,
                 .placement = placement,
                 .operation = [](Backend& backend, const TensorView& gate, const TensorView& up, const TensorView&) {
                   backend.silu_mul(gate, up);
                 }};
    cases.push_back(std::make_unique<RowCase>(silu));
    silu.name = "silu_mul/extremes";
    const float extremes[] = {-1e4f, -200.0f, -88.0f, -20.0f, -0.0f, 1e-20f, 89.0f, 1e4f};
    for (size_t i = 0; i < silu.first.values.size(); ++i) silu.first.values[i] = extremes[i % std::size(extremes)];
    cases.push_back(std::make_unique<RowCase>(std::move(silu)));
  }
}

// ---- rope

struct RopeCaseSpec {
  RopePairing pairing = RopePairing::kAdjacent;
  int32_t head_dim = 64;
  int32_t rotary_dims = 64;
  int32_t heads = 3;
  int64_t rows = 5;
  float magnitude = 1.0f;
  int32_t delta = 0;  // not 0: all rows are turned by so much, as if they had been rotated before
};

class RopeCase : public OperationCase {
 public:
  explicit RopeCase(const RopeCaseSpec& spec)
      : OperationCase(absl::StrCat(spec.delta == 0 ? "rope/" : absl::StrCat("turn_rows/by_", spec.delta, "_"),
                                   spec.pairing == RopePairing::kAdjacent ? "adjacent" : "halves", "_d", spec.head_dim,
                                   "_of_it_", spec.rotary_dims, "_magnitude_", spec.magnitude, "/", spec.rows, "x",
                                   spec.heads)),
        spec_(spec) {}

  std::unique_ptr<PreparedCase> prepare(Backend& backend) const override {
    struct State {
      BackendArray<int32_t> positions;
      BackendArray<float> inv_freq;
      CaseTensor x;
    };
    auto state = std::make_shared<State>();
    auto random = rng();
    std::vector<int32_t> positions;
    for (int64_t r = 0; r < spec_.rows; ++r) positions.push_back(static_cast<int32_t>(random() % 8192));
    positions[0] = 0;
    state->positions = {backend, positions};
    std::vector<float> inv_freq;
    for (int i = 0; i < spec_.rotary_dims / 2; ++i) {
      inv_freq.push_back(static_cast<float>(std::pow(1e5, -2.0 * i / spec_.rotary_dims)));
    }
    state->inv_freq = {backend, inv_freq};
    state->x = CaseTensor(backend, input(), Placement::kStrided);
    const RopeCaseSpec spec = spec_;
    return make_prepared(
        [state, spec, &backend] {
          const RopeSpec rope{.inv_freq = state->inv_freq.data(),
                              .pairs = state->inv_freq.size(),
                              .pairing = spec.pairing,
                              .head_dim = spec.head_dim,
                              .magnitude = spec.magnitude};
          spec.delta == 0 ? backend.rope(state->x.view(), state->positions.data(), rope)
                          : backend.turn_rows(state->x.view(), spec.delta, rope);
        },
        [state, &backend] { return Outputs{state->x.floats(backend, "x")}; });
  }

  std::vector<double> tolerance(const Outputs& expected, size_t output, Accuracy /*accuracy*/) const override {
    // A rotated element is judged by the largest input of its row: it may have been turned to nearly nothing.
    const Matrix x = input();
    std::vector<double> tolerance(expected[output].floats.size());
    for (size_t i = 0; i < tolerance.size(); ++i) {
      const float* row = x.row(static_cast<int64_t>(i) / x.cols);
      float highest = 0;
      for (int64_t c = 0; c < x.cols; ++c) highest = std::max(highest, std::abs(row[c]));
      tolerance[i] = 1e-6 * highest;
    }
    return tolerance;
  }

 private:
  Matrix input() const {
    auto random = rng();
    random.discard(1000);
    return random_matrix(random, spec_.rows, static_cast<int64_t>(spec_.heads) * spec_.head_dim);
  }
  RopeCaseSpec spec_;
};

void add_rope_cases(OperationCases& cases) {
  for (RopePairing pairing : {RopePairing::kAdjacent, RopePairing::kHalves}) {
    for (int32_t head_dim : {64, 80, 128}) {
      cases.push_back(
          std::make_unique<RopeCase>(RopeCaseSpec{.pairing = pairing, .head_dim = head_dim, .rotary_dims = head_dim}));
    }
    cases.push_back(
        std::make_unique<RopeCase>(RopeCaseSpec{.pairing = pairing, .head_dim = 80, .rotary_dims = 20, .heads = 4}));
    cases.push_back(
        std::make_unique<RopeCase>(RopeCaseSpec{.pairing = pairing, .heads = 9, .rows = 130, .magnitude = 1.1875f}));
    cases.push_back(std::make_unique<RopeCase>(RopeCaseSpec{.pairing = pairing, .heads = 1, .rows = 1}));
    for (int32_t delta : {1, -37, 8000}) {
      cases.push_back(std::make_unique<RopeCase>(
          RopeCaseSpec{.pairing = pairing, .rotary_dims = 48, .magnitude = 1.5f, .delta = delta}));
    }
  }
}

}  // namespace

void add_dense_cases(OperationCases& cases) {
  for (const QuantTraits& traits : quant_table()) {
    for (Placement placement : {Placement::kDense, Placement::kStrided}) {
      const int64_t cols = traits.block_size == 1 ? 172 : traits.block_size == 32 ? 288 : 512;
      cases.push_back(std::make_unique<EmbedCase>(traits.type, cols, placement));
    }
  }
  add_row_cases(cases);
  add_rope_cases(cases);
}

}  // namespace pkv
