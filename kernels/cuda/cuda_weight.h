// A weight in device memory.
#pragma once

#include <cstddef>
#include <memory>
#include <utility>

#include "kernels/backend.h"

namespace pkv {

// Dense float32 rows, whatever the file has.
class CudaWeight final : public Weight {
 public:
  CudaWeight(int64_t rows, int64_t cols, std::shared_ptr<std::byte> memory)
      : Weight(rows, cols), memory_(std::move(memory)) {}
  size_t bytes() const override { return static_cast<size_t>(rows() * cols()) * sizeof(float); }
  float* values() const { return reinterpret_cast<float*>(memory_.get()); }

 private:
  std::shared_ptr<std::byte> memory_;
};

}  // namespace pkv
