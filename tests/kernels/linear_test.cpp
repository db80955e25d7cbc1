// Matrix products of the CPU backend, every weight type on every instruction-set path this CPU has, against loops in
// double precision; and the promise that a row's result does not depend on the other rows or on the number of threads.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/backend.h"
#include "kernels/cpu/isa.h"
#include "kernels/quant.h"

namespace pkv {
namespace {

constexpr double kFloatRounding = 0x1p-24;  // half a unit in the last place of float32

const std::vector<int64_t> kRowCounts = {1, 2, 3, 4, 5, 6, 7, 11, 13, 16, 33, 256};

struct Path {
  std::string isa;
  bool exact = false;
  Phase phase = Phase::kPrefill;
  bool tolerant = false;  // the weights are
};

enum class Rounding { kNone, kBf16, kInt8 };

bool is_quantised(WeightType type) {
  return type != WeightType::kF32 && type != WeightType::kF16 && type != WeightType::kBF16;
}

Rounding rounding_of(const Path& path, WeightType type) {
  if (path.exact) return Rounding::kNone;
  if (path.phase == Phase::kDecode) return is_quantised(type) ? Rounding::kInt8 : Rounding::kNone;
  if (path.tolerant && is_quantised(type)) return Rounding::kInt8;
  return path.isa == "avx512_bf16" || path.isa == "amx_bf16" ? Rounding::kBf16 : Rounding::kNone;
}

std::string path_name(const Path& path) {
  return path.isa + (path.exact ? "_exact" : "") + (path.tolerant ? "_tolerant" : "") +
         (path.phase == Phase::kPrefill ? "_prefill" : "_decode");
}

std::vector<Path> available_paths() {
  std::vector<Path> paths;
  for (const char* isa : {"scalar", "avx2", "avx512", "avx512_vnni", "avx512_bf16", "amx_bf16"}) {
    if (!cap_isa(detect_isa(), isa).ok()) continue;
    for (const bool exact : {false, true}) {
      for (const Phase phase : {Phase::kPrefill, Phase::kDecode}) paths.push_back({isa, exact, phase});
    }
    if (cap_isa(detect_isa(), isa)->vnni) paths.push_back({.isa = isa, .tolerant = true});
  }
  return paths;
}

std::unique_ptr<Backend> cpu_backend(const Path& path, int32_t threads) {
  auto backend =
      make_backend({.device = "cpu", .exact = path.exact, .fast = path.tolerant, .threads = threads, .isa = path.isa});
  EXPECT_TRUE(backend.ok()) << backend.status();
  return *std::move(backend);
}

// A weight matrix of random blocks, and what they decode to.
struct Matrix {
  WeightType type;
  int64_t rows, cols;
  std::vector<uint8_t> blocks;
  std::vector<float> values;

  WeightSource source(const Path& path) const { return {blocks.data(), type, rows, cols, path.tolerant}; }
  const float* row(int64_t r) const { return values.data() + r * cols; }
};

// Byte offsets of the float16 parameters in a block.
std::vector<int32_t> half_offsets(WeightType type) {
  switch (type) {
    case WeightType::kQ4_0:
    case WeightType::kQ5_0:
    case WeightType::kQ8_0:
      return {0};
    case WeightType::kQ4_1:
    case WeightType::kQ5_1:
    case WeightType::kQ4_K:
    case WeightType::kQ5_K:
      return {0, 2};
    case WeightType::kQ6_K:
      return {208};
    default:
      return {};
  }
}

Matrix random_matrix(WeightType type, int64_t rows, int64_t cols, uint32_t seed) {
  const QuantTraits& traits = quant_traits(type);
  Matrix m{type, rows, cols, {}, std::vector<float>(rows * cols)};
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  const int64_t blocks = rows * cols / traits.block_size;
  m.blocks.resize(blocks * traits.block_bytes);
  for (int64_t b = 0; b < blocks; ++b) {
    uint8_t* block = m.blocks.data() + b * traits.block_bytes;
    if (is_quantised(type)) {
      for (int32_t i = 0; i < traits.block_bytes; ++i) block[i] = static_cast<uint8_t>(rng());
      for (const int32_t offset : half_offsets(type)) {
        const uint16_t half = float_to_half(normal(rng) * 0.05f);
        std::memcpy(block + offset, &half, 2);
      }
    } else {
      const float value = normal(rng);
      const uint16_t half =
          type == WeightType::kF16 ? float_to_half(value) : static_cast<uint16_t>(std::bit_cast<uint32_t>(value) >> 16);
      if (type == WeightType::kF32) {
        std::memcpy(block, &value, 4);
      } else {
        std::memcpy(block, &half, 2);
      }
    }
  }
  traits.decode(m.blocks.data(), m.values.data(), rows * cols);
  return m;
}

// Rows of very different magnitude, one of zeros.
std::vector<float> random_rows(int64_t rows, int64_t cols, uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(rows * cols);
  for (int64_t r = 0; r < rows; ++r) {
    const float scale = r == 5 ? 0.0f : std::exp2f(static_cast<float>(r % 9) - 4.0f);
    for (int64_t k = 0; k < cols; ++k) x[r * cols + k] = scale * normal(rng);
  }
  return x;
}

float round_to_bf16(float value) {
  uint32_t bits = std::bit_cast<uint32_t>(value);
  bits += 0x7fff + ((bits >> 16) & 1);
  return std::bit_cast<float>(bits & 0xffff0000u);
}

// What 8-bit quantisation by group makes of a row.
std::vector<float> round_to_int8(const float* x, int64_t cols, int64_t group) {
  std::vector<float> rounded(cols);
  for (int64_t g = 0; g < cols; g += group) {
    float largest = 0;
    for (int64_t i = 0; i < group; ++i) largest = std::max(largest, std::fabs(x[g + i]));
    const float inverse = largest > 0 ? 127.0f / largest : 0.0f;
    for (int64_t i = 0; i < group; ++i) {
      const auto code = static_cast<float>(std::lrintf(x[g + i] * inverse));
      rounded[g + i] = static_cast<float>(static_cast<double>(largest) / 127.0 * code);
    }
  }
  return rounded;
}

double dot(const float* a, const float* b, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += static_cast<double>(a[i]) * b[i];
  return sum;
}

double norm(const float* a, int64_t count) { return std::sqrt(dot(a, a, count)); }

// Runs out = x W^T (+ out) on `rows` rows of x, starting from `initial` when accumulating.
std::vector<float> run_linear(Backend& backend, const Weight& weight, const std::vector<float>& x, int64_t rows,
                              Phase phase, const std::vector<float>* initial) {
  Tensor in = *backend.allocate(rows, weight.cols(), DType::kF32);
  Tensor out = *backend.allocate(rows, weight.rows() + 3, DType::kF32);  // rows further apart than they are long
  std::vector<float> start(rows * (weight.rows() + 3), 7.0f);
  const TensorView result = out.view().slice_cols(0, weight.rows());
  backend.upload(in.view(), x.data());
  backend.upload(out.view(), start.data());
  if (initial != nullptr) backend.upload(result, initial->data());
  backend.linear(in.view(), weight, initial != nullptr, phase, result);
  std::vector<float> all(start.size());
  backend.fetch({all.data(), out.view()});
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < 3; ++c)
      EXPECT_EQ(all[r * (weight.rows() + 3) + weight.rows() + c], 7.0f) << "written beyond";
  }
  std::vector<float> values(rows * weight.rows());
  backend.fetch({values.data(), result});
  return values;
}

struct Case {
  WeightType type;
  int64_t rows, cols;
};

// Odd numbers of outputs; inputs that are no multiple of a vector, and more than one chunk of a tile's depth.
std::vector<Case> cases() {
  std::vector<Case> all;
  for (const QuantTraits& traits : quant_table()) {
    if (!is_quantised(traits.type)) {
      all.push_back({traits.type, 45, 67});
    } else {
      all.push_back({traits.type, 45, traits.block_size == 256 ? 512 : 576});
    }
  }
  all.push_back({WeightType::kQ4_1, 131, 288});
  all.push_back({WeightType::kQ8_0, 1, 32});
  all.push_back({WeightType::kQ4_0, 17, 4512});
  all.push_back({WeightType::kQ6_K, 67, 4352});
  all.push_back({WeightType::kF32, 33, 4501});
  return all;
}

class LinearTest : public testing::TestWithParam<Path> {};

// With activations and weights rounded as the path says, what is left is the rounding of float32 sums: at most K + 8 of
// them, each 2^-24 of a partial sum that |x| |w| bounds. In 8-bit products of formats with a minimum the partial sums
// are those of scale * code and of min, larger than the weight itself: 16 times its norm bounds these random blocks
// amply. Against unrounded operands the error is the rounding itself. bf16: 2^-9 of each operand, so 2^-8 + 2^-18 of
// |x| |w|. int8: half a step of (largest of group) / 127, at most sqrt(group) / 254 of |x| |w|. Prompts' 8-bit products
// round scales, too: those of weights to 1023rds of the largest, which three times the root mean square of a row's
// bounds here; twice 3/2 of that, and what is left for rows, is 2^-8 of |x| |w|.
TEST_P(LinearTest, EqualsDoubleLoops) {
  const Path& path = GetParam();
  auto backend = cpu_backend(path, 2);
  for (const Case& c : cases()) {
    SCOPED_TRACE(std::string(quant_traits(c.type).name) + " " + std::to_string(c.rows) + " x " +
                 std::to_string(c.cols));
    const Matrix matrix = random_matrix(c.type, c.rows, c.cols, 1);
    auto weight = backend->prepare_weight(matrix.source(path));
    ASSERT_TRUE(weight.ok()) << weight.status();
    const int64_t rows = 37;
    const std::vector<float> x = random_rows(rows, c.cols, 2);
    const std::vector<float> initial = random_rows(rows, c.rows, 3);
    const std::vector<float> out = run_linear(*backend, **weight, x, rows, path.phase, nullptr);
    const std::vector<float> accumulated = run_linear(*backend, **weight, x, rows, path.phase, &initial);
    const Rounding rounding = rounding_of(path, c.type);
    const int64_t group = c.type == WeightType::kQ6_K ? 16 : 32;
    std::vector<float> w(matrix.values);
    if (rounding == Rounding::kBf16) std::ranges::transform(w, w.begin(), round_to_bf16);
    const double sum_eps = kFloatRounding * static_cast<double>(c.cols + 8) * (rounding == Rounding::kInt8 ? 16 : 1) +
                           (rounding == Rounding::kInt8 && path.tolerant ? 0x1p-8 : 0);
    const double eps = sum_eps + (rounding == Rounding::kBf16   ? 0x1p-8 + 0x1p-18
                                  : rounding == Rounding::kInt8 ? std::sqrt(static_cast<double>(group)) / 254
                                                                : 0.0);
    for (int64_t r = 0; r < rows; ++r) {
      const float* row = x.data() + r * c.cols;
      std::vector<float> rounded(row, row + c.cols);
      if (rounding == Rounding::kBf16) std::ranges::transform(rounded, rounded.begin(), round_to_bf16);
      if (rounding == Rounding::kInt8) rounded = round_to_int8(row, c.cols, group);
      for (int64_t o = 0; o < c.rows; ++o) {
        const double scale = norm(row, c.cols) * norm(matrix.row(o), c.cols);
        const float value = out[r * c.rows + o];
        ASSERT_NEAR(value, dot(rounded.data(), w.data() + o * c.cols, c.cols), sum_eps * scale)
            << "row " << r << " output " << o;
        ASSERT_NEAR(value, dot(row, matrix.row(o), c.cols), eps * scale) << "row " << r << " output " << o;
        ASSERT_EQ(accumulated[r * c.rows + o], initial[r * c.rows + o] + value) << "row " << r << " output " << o;
      }
    }
  }
}

TEST_P(LinearTest, RowsDoNotDependOnOthersOrThreads) {
  const Path& path = GetParam();
  const int64_t most = kRowCounts.back();
  for (const Case& c : cases()) {
    SCOPED_TRACE(std::string(quant_traits(c.type).name) + " " + std::to_string(c.rows) + " x " +
                 std::to_string(c.cols));
    if (path.isa == "scalar" && c.cols > 600) continue;  // slow, and one code path for all sizes
    const Matrix matrix = random_matrix(c.type, c.rows, c.cols, 4);
    const std::vector<float> x = random_rows(most, c.cols, 5);
    std::vector<float> expected;
    for (const int32_t threads : {1, 2, 3}) {
      auto backend = cpu_backend(path, threads);
      auto weight = backend->prepare_weight(matrix.source(path));
      ASSERT_TRUE(weight.ok()) << weight.status();
      if (expected.empty()) expected = run_linear(*backend, **weight, x, most, path.phase, nullptr);
      for (const int64_t rows : kRowCounts) {
        // Different rows each time, so that they also change neighbours and places in a tile.
        const int64_t first = (most - rows) / 2;
        const std::vector<float> part(x.begin() + first * c.cols, x.begin() + (first + rows) * c.cols);
        const std::vector<float> out = run_linear(*backend, **weight, part, rows, path.phase, nullptr);
        ASSERT_EQ(0, std::memcmp(out.data(), expected.data() + first * c.rows, out.size() * sizeof(float)))
            << rows << " rows, " << threads << " threads";
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Paths, LinearTest, testing::ValuesIn(available_paths()),
                         [](const testing::TestParamInfo<Path>& param) { return path_name(param.param); });

class PackingTest : public testing::TestWithParam<Path> {};

// Packing loses nothing: products with unit vectors, and embedding rows, are the decoded weights themselves.
TEST_P(PackingTest, UnpacksWhatTheFileDecodesTo) {
  const Path& path = GetParam();
  auto backend = cpu_backend(path, 2);
  for (const Case& c : cases()) {
    if (c.cols > 600) continue;
    SCOPED_TRACE(quant_traits(c.type).name);
    const Matrix matrix = random_matrix(c.type, c.rows, c.cols, 6);
    auto weight = backend->prepare_weight(matrix.source(path));
    ASSERT_TRUE(weight.ok()) << weight.status();
    std::vector<float> identity(c.cols * c.cols, 0.0f);
    for (int64_t k = 0; k < c.cols; ++k) identity[k * c.cols + k] = 1.0f;
    const std::vector<float> out = run_linear(*backend, **weight, identity, c.cols, path.phase, nullptr);
    Tensor embedded = *backend->allocate(c.rows, c.cols, DType::kF32);
    std::vector<int32_t> ids(c.rows);
    for (int64_t o = 0; o < c.rows; ++o) ids[o] = static_cast<int32_t>(o);
    backend->embed(**weight, ids.data(), embedded.view());
    for (int64_t o = 0; o < c.rows; ++o) {
      for (int64_t k = 0; k < c.cols; ++k) {
        ASSERT_EQ(out[k * c.rows + o], matrix.row(o)[k]) << "output " << o << " input " << k;
        ASSERT_EQ(embedded.view().f32_row(o)[k], matrix.row(o)[k]) << "row " << o << " column " << k;
      }
    }
    // 5- and 6-bit codes take a byte each; nothing else grows but for the padding of the last panel.
    const bool grows = c.type == WeightType::kQ5_0 || c.type == WeightType::kQ5_1 || c.type == WeightType::kQ5_K ||
                       c.type == WeightType::kQ6_K;
    const double padded = static_cast<double>((c.rows + 15) / 16 * 16) / static_cast<double>(c.rows);
    EXPECT_LE(static_cast<double>((*weight)->bytes()),
              padded * static_cast<double>(matrix.blocks.size()) * (grows ? 1.6 : 1.03) + 64);
  }
}

std::vector<Path> exact_paths() {
  std::vector<Path> paths = available_paths();
  std::erase_if(paths, [](const Path& path) { return !path.exact || path.phase == Phase::kDecode; });
  return paths;
}

INSTANTIATE_TEST_SUITE_P(Paths, PackingTest, testing::ValuesIn(exact_paths()),
                         [](const testing::TestParamInfo<Path>& param) { return path_name(param.param); });

TEST(PackingTest, RefusesColumnsThatAreNoWholeBlocks) {
  auto backend = cpu_backend({.isa = "scalar"}, 1);
  const std::vector<uint8_t> blocks(1000);
  const auto weight = backend->prepare_weight({blocks.data(), WeightType::kQ4_0, 1, 48});
  EXPECT_EQ(weight.status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace pkv
