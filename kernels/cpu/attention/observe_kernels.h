// PanelKernels' part in observation, for kernels that are compiled once per instruction set (vec.h): of panels of kRows
// rows, whose scores `score` leaves in panel.scores.
#pragma once

#include <cstdint>

#include "kernels/cpu/attention/attention_kernels.h"
#include "kernels/cpu/attention/softmax.h"

namespace pkv {
namespace {

template <int32_t kRows, void (*score)(const Panel&)>
void lse_panel(const Panel& panel, float* max, float* sum) {
  score(panel);
  for (int32_t r = 0; r < kRows; ++r) {
    float* scores = panel.scores + r * kScoreStride;
    const int32_t limit = panel.limits[r];
    max[r] = limit > 0 ? max_score(scores, limit) : kNegativeInfinity;
    sum[r] = limit > 0 ? exp_and_sum(scores, limit, max[r]) : 0.0f;
  }
}

// sums[j] += w, squares[j] += w^2 (where there are any) of the weights w = weigh(numbers[j]), j < count. Reads numbers
// to the end of the last vector.
template <typename Weigh>
void add_row(const float* numbers, int32_t count, float* sums, float* squares, const Weigh& weigh) {
  using V = Vec<float>;
  int32_t j = 0;
  for (; j + V::kWidth <= count; j += V::kWidth) {
    const V::Type weight = weigh(V::load(numbers + j));
    V::store(sums + j, V::load(sums + j) + weight);
    if (squares != nullptr) V::store(squares + j, V::load(squares + j) + weight * weight);
  }
  if (j == count) return;
  float rest[V::kWidth];
  V::store(rest, weigh(V::load(numbers + j)));
  for (int32_t i = 0; j < count; ++i, ++j) {
    sums[j] += rest[i];
    if (squares == nullptr) continue;
    const float square = rest[i] * rest[i];
    squares[j] += square;
  }
}

// Adds the weights, which weigh_by(lse) makes of the numbers in panel.scores, to every row's sums and squares.
template <typename WeighBy>
void add_rows(const Panel& panel, int32_t rows, const PanelMass& mass, const WeighBy& weigh_by) {
  for (int32_t r = 0; r < rows; ++r) {
    add_row(panel.scores + r * kScoreStride, panel.limits[r], mass.sums[r],
            mass.squares == nullptr ? nullptr : mass.squares[r], weigh_by(mass.lse[r]));
  }
}

template <int32_t kRows, void (*score)(const Panel&)>
void mass_panel(const Panel& panel, const PanelMass& mass) {
  using V = Vec<float>;
  score(panel);
  add_rows(panel, kRows, mass,
           [](float lse) { return [shift = V::broadcast(lse)](V::Type number) { return exp2(number - shift); }; });
}

template <int32_t kRows>
void add_weights(const Panel& panel, const PanelMass& mass) {
  using V = Vec<float>;
  add_rows(panel, kRows, mass,
           [](float lse) { return [factor = exp2(V::broadcast(-lse))](V::Type weight) { return weight * factor; }; });
}

}  // namespace
}  // namespace pkv
