// Weights in the CPU backend's layout (kernel_table.h): repacked without loss, in memory of the backend's own.
#pragma once

#include <cstddef>
#include <memory>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/thread_pool.h"

namespace pkv {

// Gives out pieces of large blocks, so that many small weights share huge pages.
class WeightArena {
 public:
  // 64-byte aligned zeros; the block lives as long as any piece of it. nullptr when the machine has no such memory.
  std::shared_ptr<uint8_t> allocate(size_t bytes);

 private:
  std::shared_ptr<uint8_t> block_;
  size_t used_ = 0;
  size_t size_ = 0;
};

class PackedWeight final : public Weight {
 public:
  PackedWeight(const PackedView& view, size_t bytes, std::shared_ptr<uint8_t> storage);
  size_t bytes() const override { return bytes_; }
  const PackedView& view() const { return view_; }

 private:
  PackedView view_;
  size_t bytes_;
  std::shared_ptr<uint8_t> storage_;
};

// RESOURCE_EXHAUSTED when memory is short; INVALID_ARGUMENT when cols is not a multiple of the type's block size.
absl::StatusOr<std::unique_ptr<PackedWeight>> pack_weight(const WeightSource& source, WeightArena& arena,
                                                          ThreadPool& pool);

// Decodes output `row` to out [cols].
void unpack_row(const PackedView& weight, int64_t row, float* out);

}  // namespace pkv
