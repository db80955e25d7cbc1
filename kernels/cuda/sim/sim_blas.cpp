#include "kernels/cuda/sim/sim_blas.h"

#include <vector>

#include "kernels/quant.h"

namespace pkv::sim {
namespace {

float dot(const float* a, const float* b, int64_t count) {
  float partial[gpu::BfloatFactors::kMultiple] = {};  // for speed; their order is fixed
  for (int64_t i = 0; i < count; i += std::ssize(partial)) {
    for (int64_t p = 0; p < std::ssize(partial); ++p) partial[p] += a[i + p] * b[i + p];
  }
  float sum = 0;
  for (const float value : partial) sum += value;
  return sum;
}

// Rows of `count` numbers.
std::vector<float> to_floats(const uint16_t* from, int64_t rows, int64_t count) {
  std::vector<float> floats(static_cast<size_t>(rows * count));
  for (float& value : floats) value = bfloat16_to_float(*from++);
  return floats;
}

class SimBlas final : public gpu::Blas {
 public:
  explicit SimBlas(SimStream& stream) : stream_(stream) {}

  void multiply(const gpu::BfloatFactors& factors, bool accumulate, const TensorView& out) override {
    stream_.launch({.name = "matrix product", .blocks = 1, .threads = 1}, [=] {
      const int64_t inputs = factors.inputs;
      const std::vector<float> x = to_floats(factors.x, out.rows, inputs);
      for (int64_t n = 0; n < out.cols; ++n) {
        const std::vector<float> weights = to_floats(factors.weights + n * inputs, 1, inputs);
        for (int64_t r = 0; r < out.rows; ++r) {
          float& to = out.f32_row(r)[n];
          to = (accumulate ? to : 0.0f) + dot(x.data() + r * inputs, weights.data(), inputs);
        }
      }
    });
  }

 private:
  SimStream& stream_;
};

}  // namespace

std::unique_ptr<gpu::Blas> make_sim_blas(SimStream& stream) { return std::make_unique<SimBlas>(stream); }

}  // namespace pkv::sim
