// Scores that backends have no operation for, computed on the host: vectors of one number per entry.
#pragma once

#include <utility>
#include <vector>

#include "kernels/backend.h"

namespace pkv {

// view[g, j] = f(g, j, view[g, j]) for a float32 view.
template <typename Function>
void map_scores(Backend& backend, const TensorView& view, Function&& f) {
  std::vector<float> values(static_cast<size_t>(view.rows * view.cols));
  backend.fetch({values.data(), view});
  for (int64_t g = 0; g < view.rows; ++g) {
    for (int64_t j = 0; j < view.cols; ++j) {
      float& value = values[static_cast<size_t>(g * view.cols + j)];
      value = f(static_cast<int32_t>(g), static_cast<int32_t>(j), std::as_const(value));
    }
  }
  backend.upload(view, values.data());
}

// view[g, j] = f(g, j), whatever was there.
template <typename Function>
void make_scores(Backend& backend, const TensorView& view, Function&& f) {
  std::vector<float> values;
  values.reserve(static_cast<size_t>(view.rows * view.cols));
  for (int64_t g = 0; g < view.rows; ++g) {
    for (int64_t j = 0; j < view.cols; ++j) values.push_back(f(static_cast<int32_t>(g), static_cast<int32_t>(j)));
  }
  backend.upload(view, values.data());
}

}  // namespace pkv
