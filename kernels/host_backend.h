// What backends whose memory is the host's have in common. Both sides of what is staged are one, so that a commit costs
// nothing, and a fetch is a copy; what a step's evictions observe is made of other operations, one row after another.
#pragma once

#include <memory>
#include <span>
#include <vector>

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
  // host_pattern.cpp
  void choose_pattern(const PatternMasses& masses, const SparsePattern& pattern, const TensorView& pairs) override;
  void keep_queries(const EvictingStep& step, const TensorView& q) override;
  void add_attention(const EvictingStep& step, const TokenQueries& queries) override;

 protected:
  // observe() of a token for add_attention(), float32 in every mode.
  virtual void observe_token(const ObserveArgs& args, const TensorView& lse, const TensorView& sums) {
    observe(args, lse, sums, {});
  }

 private:
  std::vector<float> lse_;  // [Hq] of a row of add_attention()
};

}  // namespace pkv
