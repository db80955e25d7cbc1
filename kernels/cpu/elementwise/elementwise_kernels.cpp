// Element by element kernels as plain loops, compiled once per instruction set (CMakeLists.txt) and vectorised by the
// compiler. Sums run in a fixed number of parts, so that they vectorise and their order is the source's.
#include "kernels/cpu/exponential.h"
#include "kernels/cpu/kernel_table.h"

namespace pkv {
namespace {

constexpr int kSums = 32;

inline float total(const float* sums) {
  double sum = 0;
  for (int i = 0; i < kSums; ++i) sum += sums[i];
  return static_cast<float>(sum);
}

void rms_norm(const float* x, const float* gain, float eps, int64_t cols, float* out) {
  float sums[kSums] = {};
  int64_t c = 0;
  for (; c + kSums <= cols; c += kSums) {
    for (int i = 0; i < kSums; ++i) sums[i] += x[c + i] * x[c + i];
  }
  for (; c < cols; ++c) sums[c % kSums] += x[c] * x[c];
  const float factor = 1.0f / __builtin_sqrtf(total(sums) / static_cast<float>(cols) + eps);
  for (c = 0; c < cols; ++c) out[c] = x[c] * factor * gain[c];
}

void add(float* __restrict x, const float* __restrict y, int64_t cols) {
  for (int64_t c = 0; c < cols; ++c) x[c] += y[c];
}

void silu_mul(float* __restrict gate, const float* __restrict up, int64_t cols) {
  for (int64_t c = 0; c < cols; ++c) gate[c] = gate[c] / (1.0f + exp(-gate[c])) * up[c];
}

void block_maxima(const float* __restrict x, int64_t cols, int64_t block, float* __restrict maxima) {
  for (int64_t begin = 0; begin < cols; begin += block) {
    const int64_t end = begin + block < cols ? begin + block : cols;
    float largest[kSums];
    for (int i = 0; i < kSums; ++i) largest[i] = -__builtin_inff();
    int64_t c = begin;
    for (; c + kSums <= end; c += kSums) {
      for (int i = 0; i < kSums; ++i) largest[i] = x[c + i] > largest[i] ? x[c + i] : largest[i];
    }
    for (; c < end; ++c) largest[c % kSums] = x[c] > largest[c % kSums] ? x[c] : largest[c % kSums];
    for (int half = kSums / 2; half > 0; half /= 2) {
      for (int i = 0; i < half; ++i) largest[i] = largest[i + half] > largest[i] ? largest[i + half] : largest[i];
    }
    *maxima++ = largest[0];
  }
}

double exp_sum(const float* __restrict x, int64_t cols, float top, float scale) {
  constexpr int64_t kBlock = 1024;  // short float32 sums, added up in double
  double sum = 0;
  for (int64_t begin = 0; begin < cols; begin += kBlock) {
    const int64_t end = begin + kBlock < cols ? begin + kBlock : cols;
    float sums[kSums] = {};
    int64_t c = begin;
    for (; c + kSums <= end; c += kSums) {
      for (int i = 0; i < kSums; ++i) sums[i] += exp((x[c + i] - top) * scale);
    }
    for (; c < end; ++c) sums[c % kSums] += exp((x[c] - top) * scale);
    for (int i = 0; i < kSums; ++i) sum += sums[i];
  }
  return sum;
}

void rope_adjacent(float* __restrict x, const float* __restrict cosines, const float* __restrict sines, int32_t pairs,
                   int32_t heads, int32_t head_dim) {
  for (int32_t head = 0; head < heads; ++head, x += head_dim) {
    for (int32_t i = 0; i < pairs; ++i) {
      const float a = x[2 * i], b = x[2 * i + 1];
      x[2 * i] = a * cosines[i] - b * sines[i];
      x[2 * i + 1] = a * sines[i] + b * cosines[i];
    }
  }
}

// The other half lies at the middle of the rotated dimensions.
void rope_halves(float* __restrict x, const float* __restrict cosines, const float* __restrict sines, int32_t pairs,
                 int32_t heads, int32_t head_dim) {
  for (int32_t head = 0; head < heads; ++head, x += head_dim) {
    for (int32_t i = 0; i < pairs; ++i) {
      const float a = x[i], b = x[i + pairs];
      x[i] = a * cosines[i] - b * sines[i];
      x[i + pairs] = a * sines[i] + b * cosines[i];
    }
  }
}

}  // namespace

template <>
constinit const ElementwiseKernels PathTable<ElementwiseKernels, kIsa>::kernels = {
    .rms_norm = rms_norm,
    .add = add,
    .silu_mul = silu_mul,
    .block_maxima = block_maxima,
    .exp_sum = exp_sum,
    .rope_adjacent = rope_adjacent,
    .rope_halves = rope_halves,
};

}  // namespace pkv
