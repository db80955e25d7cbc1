#include "kernels/cuda/sim/sim_blas.h"

namespace pkv::sim {
namespace {

float dot(const float* a, const float* b, int64_t count) {
  constexpr int64_t kPartials = 8;  // for speed; their order is fixed
  float partial[kPartials] = {};
  int64_t i = 0;
  for (; i + kPartials <= count; i += kPartials) {
    for (int64_t p = 0; p < kPartials; ++p) partial[p] += a[i + p] * b[i + p];
  }
  float sum = 0;
  for (; i < count; ++i) sum += a[i] * b[i];
  for (const float value : partial) sum += value;
  return sum;
}

class SimBlas final : public gpu::Blas {
 public:
  explicit SimBlas(SimStream& stream) : stream_(stream) {}

  void multiply(const TensorView& x, const float* w, bool accumulate, const TensorView& out) override {
    stream_.launch({.name = "matrix product", .blocks = 1, .threads = 1}, [=] {
      for (int64_t n = 0; n < out.cols; ++n) {
        for (int64_t r = 0; r < out.rows; ++r) {
          float& to = out.f32_row(r)[n];
          to = (accumulate ? to : 0.0f) + dot(x.f32_row(r), w + n * x.cols, x.cols);
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
