// The model's output head over a few rows at a time: logits on the host, and their log-sum-exp where it is wanted.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "server/model/model.h"

namespace pkv {

class OutputHead {
 public:
  // For at most `rows` rows at once. `model` must outlive this. RESOURCE_EXHAUSTED where the memory cannot be had.
  static absl::StatusOr<OutputHead> create(const Model& model, int32_t rows);

  int32_t rows() const { return static_cast<int32_t>(logits_.view().rows); }
  uint64_t bytes() const;

  // x [R <= rows(), D].
  void compute(const TensorView& x, Phase phase, bool with_log_sum_exp);
  std::span<float> logits(int64_t row);  // [V], until the next compute()
  float log_sum_exp(int64_t row) const { return host_lse_[static_cast<size_t>(row)]; }

 private:
  explicit OutputHead(const Model& model) : model_(&model) {}

  const Model* model_;
  Tensor normed_;  // [rows, D]
  Tensor logits_;  // [rows, V]
  Tensor lse_;     // [rows, 1]
  std::vector<float> host_logits_, host_lse_;
};

}  // namespace pkv
