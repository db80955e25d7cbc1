// The reference backend's dense operations: embedding, norms, matrix products, rotary embedding, activations.
#include <cmath>
#include <vector>

#include "kernels/check.h"
#include "kernels/reference/reference_backend.h"

namespace pkv {

double reference_dot(const float* a, const float* b, int64_t count) {
  // Eight partial sums keep the oracle fast enough for a real model; their order is fixed.
  constexpr int64_t kPartials = 8;
  double partial[kPartials] = {};
  int64_t i = 0;
  for (; i + kPartials <= count; i += kPartials) {
    for (int64_t p = 0; p < kPartials; ++p) partial[p] += static_cast<double>(a[i + p]) * static_cast<double>(b[i + p]);
  }
  double sum = 0;
  for (; i < count; ++i) sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  for (double value : partial) sum += value;
  return sum;
}

void ReferenceBackend::embed(const Weight& table, const int32_t* ids, const TensorView& out) {
  const auto& weight = static_cast<const ReferenceWeight&>(table);
  for (int64_t r = 0; r < out.rows; ++r) {
    PKV_CHECK(ids[r] >= 0 && ids[r] < table.rows(), "token id outside the embedding table");
    const float* row = weight.row(ids[r]);
    float* to = out.f32_row(r);
    for (int64_t c = 0; c < table.cols(); ++c) to[c] = row[c];
  }
}

void ReferenceBackend::rms_norm(const TensorView& x, const TensorView& gain, float eps, const TensorView& out) {
  for (int64_t r = 0; r < x.rows; ++r) {
    const float* row = x.f32_row(r);
    const double mean_square = reference_dot(row, row, x.cols) / static_cast<double>(x.cols);
    const double factor = 1.0 / std::sqrt(mean_square + static_cast<double>(eps));
    float* to = out.f32_row(r);
    for (int64_t c = 0; c < x.cols; ++c) to[c] = static_cast<float>(row[c] * factor * gain.f32()[c]);
  }
}

void ReferenceBackend::linear(const TensorView& x, const Weight& weight, bool accumulate, Phase /*phase*/,
                              const TensorView& out) {
  const auto& w = static_cast<const ReferenceWeight&>(weight);
  PKV_CHECK(x.cols == w.cols() && out.cols == w.rows() && out.rows == x.rows, "shapes of a linear layer");
  // Weight rows outside: each is read from memory once.
  for (int64_t n = 0; n < w.rows(); ++n) {
    for (int64_t r = 0; r < x.rows; ++r) {
      float& to = out.f32_row(r)[n];
      const double before = accumulate ? static_cast<double>(to) : 0.0;
      to = static_cast<float>(before + reference_dot(x.f32_row(r), w.row(n), w.cols()));
    }
  }
}

void ReferenceBackend::add_bias(const TensorView& x, const TensorView& bias) {
  for (int64_t r = 0; r < x.rows; ++r) {
    float* row = x.f32_row(r);
    for (int64_t c = 0; c < x.cols; ++c) row[c] += bias.f32()[c];
  }
}

void ReferenceBackend::rope(const TensorView& x, const int32_t* positions, const RopeSpec& spec) {
  const int64_t pairs = spec.pairs;
  PKV_CHECK(spec.head_dim > 0 && 2 * pairs <= spec.head_dim && x.cols % spec.head_dim == 0, "shapes of rope");
  // The second element of a pair: next to the first, or half of the rotated dimensions away.
  const bool adjacent = spec.pairing == RopePairing::kAdjacent;
  const int64_t step = adjacent ? 2 : 1, distance = adjacent ? 1 : pairs;
  for (int64_t r = 0; r < x.rows; ++r) {
    for (int64_t i = 0; i < pairs; ++i) {
      // The angle is a float32 product, as in every implementation models are trained and published with: at position
      // 8000 the exact product differs from it by up to 2e-4.
      const float angle = static_cast<float>(positions[r]) * spec.inv_freq[i];
      const double cosine = std::cos(static_cast<double>(angle)) * static_cast<double>(spec.magnitude);
      const double sine = std::sin(static_cast<double>(angle)) * static_cast<double>(spec.magnitude);
      for (int64_t head = 0; head < x.cols; head += spec.head_dim) {
        float* first = x.f32_row(r) + head + i * step;
        float* second = first + distance;
        const double a = *first, b = *second;
        *first = static_cast<float>(a * cosine - b * sine);
        *second = static_cast<float>(a * sine + b * cosine);
      }
    }
  }
}

void ReferenceBackend::turn_rows(const TensorView& x, int32_t delta, const RopeSpec& spec) {
  RopeSpec turn = spec;
  turn.magnitude = 1;  // it was multiplied in when the rows were rotated first
  const std::vector<int32_t> deltas(static_cast<size_t>(x.rows), delta);
  rope(x, deltas.data(), turn);
}

void ReferenceBackend::silu_mul(const TensorView& gate, const TensorView& up) {
  for (int64_t r = 0; r < gate.rows; ++r) {
    float* g = gate.f32_row(r);
    const float* u = up.f32_row(r);
    for (int64_t c = 0; c < gate.cols; ++c) {
      const double z = g[c];
      g[c] = static_cast<float>(z / (1.0 + std::exp(-z)) * u[c]);
    }
  }
}

}  // namespace pkv
