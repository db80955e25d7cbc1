// See case_data.h.
#include "tests/kernels/case_data.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "kernels/check.h"

namespace pkv {

Matrix random_matrix(std::mt19937& rng, int64_t rows, int64_t cols, float deviation) {
  Matrix matrix(rows, cols);
  std::normal_distribution<float> normal(0.0f, deviation);
  for (float& value : matrix.values) value = normal(rng);
  return matrix;
}

namespace {

constexpr int64_t kGuardsBefore = 3, kGuardsAfter = 5;
constexpr float kGuard = -7.25e8f;

}  // namespace

CaseTensor::CaseTensor(Backend& backend, const Matrix& content, Placement placement) {
  const bool strided = placement == Placement::kStrided;
  const int64_t before = strided ? kGuardsBefore : 0, after = strided ? kGuardsAfter : 0;
  Matrix whole(content.rows, before + content.cols + after, kGuard);
  for (int64_t r = 0; r < content.rows; ++r) std::copy_n(content.row(r), content.cols, whole.row(r) + before);
  auto tensor = backend.allocate(whole.rows, whole.cols, DType::kF32);
  PKV_CHECK(tensor.ok(), "no memory for a test tensor");
  tensor_ = *std::move(tensor);
  view_ = tensor_.view().slice_cols(before, content.cols);
  backend.upload(tensor_.view(), whole.values.data());
}

CaseTensor::CaseTensor(Backend& backend, int64_t rows, int64_t cols, std::span<const int32_t> content) {
  PKV_CHECK(content.size() == static_cast<size_t>(rows * cols), "content of a test tensor");
  auto tensor = backend.allocate(rows, cols, DType::kI32);
  PKV_CHECK(tensor.ok(), "no memory for a test tensor");
  tensor_ = *std::move(tensor);
  view_ = tensor_.view();
  backend.upload(view_, content.data());
}

Output CaseTensor::floats(Backend& backend, std::string name) const {
  Matrix whole(tensor_.view().rows, tensor_.view().cols);
  backend.fetch({whole.values.data(), tensor_.view()});
  const int64_t before = whole.cols > view_.cols ? kGuardsBefore : 0;
  Output output{.name = std::move(name)};
  for (int64_t r = 0; r < whole.rows; ++r) {
    for (int64_t c = 0; c < whole.cols; ++c) {
      const float value = whole.row(r)[c];
      const bool inside = c >= before && c < before + view_.cols;
      if (inside) output.floats.push_back(value);
      if (!inside) output.exact.push_back(std::bit_cast<int32_t>(value));
    }
  }
  return output;
}

Output CaseTensor::integers(Backend& backend, std::string name) const {
  Output output{.name = std::move(name)};
  output.exact.resize(static_cast<size_t>(view_.rows * view_.cols));
  backend.fetch({output.exact.data(), view_});
  return output;
}

std::vector<uint8_t> random_weight(std::mt19937& rng, WeightType type, int64_t rows, int64_t cols) {
  const QuantTraits& traits = quant_traits(type);
  PKV_CHECK(cols % traits.block_size == 0, "columns are not whole blocks");
  const int64_t blocks = rows * cols / traits.block_size;
  std::vector<uint8_t> bytes(static_cast<size_t>(blocks * traits.block_bytes));
  std::normal_distribution<float> weight(0.0f, 0.05f);
  if (traits.block_size == 1) {
    for (int64_t i = 0; i < blocks; ++i) {
      const float value = weight(rng);
      const uint32_t bits = std::bit_cast<uint32_t>(value);
      const uint32_t stored = type == WeightType::kF16    ? float_to_half(value)
                              : type == WeightType::kBF16 ? bits >> 16
                                                          : bits;
      std::memcpy(bytes.data() + i * traits.block_bytes, &stored, static_cast<size_t>(traits.block_bytes));
    }
    return bytes;
  }
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(rng() >> 24);
  // Where the halves of a block lie, and sizes of scale and minimum that give weights around 0.05 and centred.
  struct Halves {
    WeightType type;
    int32_t scale_offset;
    float scale;
    int32_t minimum_offset;  // -1: none
    float minimum;
  };
  constexpr Halves kHalves[] = {
      {WeightType::kQ4_0, 0, 0.01f, -1, 0},         {WeightType::kQ4_1, 0, 0.01f, 2, -0.075f},
      {WeightType::kQ5_0, 0, 0.005f, -1, 0},        {WeightType::kQ5_1, 0, 0.005f, 2, -0.0775f},
      {WeightType::kQ8_0, 0, 0.0007f, -1, 0},       {WeightType::kQ4_K, 0, 0.0003f, 2, 0.0023f},
      {WeightType::kQ5_K, 0, 0.00015f, 2, 0.0023f}, {WeightType::kQ6_K, 208, 0.00004f, -1, 0},
  };
  std::uniform_real_distribution<float> spread(0.5f, 1.5f);
  const auto* halves =
      std::find_if(std::begin(kHalves), std::end(kHalves), [type](const Halves& h) { return h.type == type; });
  PKV_CHECK(halves != std::end(kHalves), "no random blocks of this format");
  for (int64_t block = 0; block < blocks; ++block) {
    uint8_t* at = bytes.data() + block * traits.block_bytes;
    const uint16_t scale = float_to_half(halves->scale * spread(rng));
    std::memcpy(at + halves->scale_offset, &scale, sizeof(scale));
    if (halves->minimum_offset < 0) continue;
    const uint16_t minimum = float_to_half(halves->minimum * spread(rng));
    std::memcpy(at + halves->minimum_offset, &minimum, sizeof(minimum));
  }
  return bytes;
}

namespace {

TensorView word_view(const void* data, size_t bytes) {
  const auto words = static_cast<int64_t>(bytes / sizeof(int32_t));
  return {const_cast<void*>(data), DType::kI32, 1, words, words};
}

}  // namespace

void upload_words(Backend& backend, void* to, const void* from, size_t bytes) {
  backend.upload(word_view(to, bytes), from);
}

void download_words(Backend& backend, void* to, const void* from, size_t bytes) {
  backend.fetch({to, word_view(from, bytes)});
}

namespace {

class PreparedFunctions : public PreparedCase {
 public:
  PreparedFunctions(std::function<void()> run, std::function<Outputs()> outputs)
      : run_(std::move(run)), outputs_(std::move(outputs)) {}
  void run() override { run_(); }
  Outputs outputs() override { return outputs_(); }

 private:
  std::function<void()> run_;
  std::function<Outputs()> outputs_;
};

}  // namespace

std::unique_ptr<PreparedCase> make_prepared(std::function<void()> run, std::function<Outputs()> outputs) {
  return std::make_unique<PreparedFunctions>(std::move(run), std::move(outputs));
}

std::vector<double> relative_tolerance(const std::vector<float>& values, double relative, double absolute) {
  std::vector<double> tolerance;
  for (float value : values) tolerance.push_back(relative * std::abs(value) + absolute);
  return tolerance;
}

double absolute_dot(const float* a, const float* b, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += std::abs(static_cast<double>(a[i]) * b[i]);
  return sum;
}

double norm(const float* a, int64_t count) { return std::sqrt(absolute_dot(a, a, count)); }

}  // namespace pkv
