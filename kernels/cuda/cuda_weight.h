// A weight in device memory.
#pragma once

#include <cstddef>
#include <memory>
#include <utility>

#include "kernels/backend.h"
#include "kernels/quant.h"

namespace pkv {

// Rows of blocks: as the file has them, or decoded to float32.
class CudaWeight final : public Weight {
 public:
  CudaWeight(int64_t rows, int64_t cols, WeightType type, std::shared_ptr<std::byte> memory)
      : Weight(rows, cols), type_(type), memory_(std::move(memory)) {}
  size_t bytes() const override { return static_cast<size_t>(rows()) * row_bytes(); }
  WeightType type() const { return type_; }
  std::byte* row(int64_t index) const { return memory_.get() + static_cast<size_t>(index) * row_bytes(); }

 private:
  size_t row_bytes() const {
    const QuantTraits& traits = quant_traits(type_);
    return static_cast<size_t>(cols() / traits.block_size * traits.block_bytes);
  }

  WeightType type_;
  std::shared_ptr<std::byte> memory_;
};

}  // namespace pkv
