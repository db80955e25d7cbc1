// The memory of backends whose memory is the host's: both sides of what is staged are one, so that a commit costs
// nothing, and a fetch is a copy.
#pragma once

#include <memory>
#include <span>

#include "kernels/backend.h"

namespace pkv {

class HostBackend : public Backend {
 public:
  absl::StatusOr<Tensor> allocate(int64_t rows, int64_t cols, DType dtype) override;
  absl::StatusOr<std::shared_ptr<std::byte>> allocate_lazy(size_t bytes) override;
  absl::StatusOr<Staged> allocate_staged(size_t bytes) override;
  void commit(const Staged& staged, size_t offset, size_t bytes) override;
  void upload(const TensorView& to, const void* from) override;
  void fill(const TensorView& to, float value) override;
  void copy(const TensorView& to, const TensorView& from) override;
  using Backend::fetch;
  void fetch(std::span<const Fetch> reads) override;
  void sync() override {}
  void set_page_ids(int32_t* page_ids, const PageEdit* edits, int32_t count) override;
};

}  // namespace pkv
