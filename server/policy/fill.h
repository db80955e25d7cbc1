// Sets every element of a float32 tensor, which backends have no operation for.
#pragma once

#include <vector>

#include "kernels/backend.h"

namespace pkv {

inline void fill(Backend& backend, const TensorView& view, float value) {
  const std::vector<float> row(static_cast<size_t>(view.cols), value);
  for (int64_t i = 0; i < view.rows; ++i) backend.upload(view.slice_rows(i, 1), row.data());
  backend.sync();  // `row` goes out of scope
}

}  // namespace pkv
