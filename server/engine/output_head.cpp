// Logits of some rows, fetched to the host.
#include "server/engine/output_head.h"

#include <utility>

#include "kernels/status_macros.h"

namespace pkv {

absl::StatusOr<OutputHead> OutputHead::create(const Model& model, int32_t rows) {
  OutputHead head(model);
  const ModelShape& shape = model.shape();
  const struct {
    Tensor& tensor;
    int64_t cols;
  } wanted[] = {{head.normed_, shape.width}, {head.logits_, shape.vocab_size}, {head.lse_, 1}};
  for (const auto& [tensor, cols] : wanted) {
    PKV_ASSIGN_OR_RETURN(tensor, model.backend().allocate(rows, cols, DType::kF32));
  }
  head.host_logits_.resize(static_cast<size_t>(rows) * static_cast<size_t>(shape.vocab_size));
  head.host_lse_.resize(static_cast<size_t>(rows));
  return head;
}

uint64_t OutputHead::bytes() const {
  return normed_.bytes() + logits_.bytes() + lse_.bytes() + (host_logits_.size() + host_lse_.size()) * sizeof(float);
}

void OutputHead::compute(const TensorView& x, Phase phase, bool with_log_sum_exp) {
  const TensorView logits = logits_.view().slice_rows(0, x.rows);
  model_->logits(x, phase, normed_.view().slice_rows(0, x.rows), logits);
  if (with_log_sum_exp) {
    const TensorView lse = lse_.view().slice_rows(0, x.rows);
    model_->backend().log_sum_exp(logits, lse);
    model_->backend().fetch({host_lse_.data(), lse});
  }
  model_->backend().fetch({host_logits_.data(), logits});
}

std::span<float> OutputHead::logits(int64_t row) {
  const auto vocabulary = static_cast<size_t>(model_->shape().vocab_size);
  return std::span(host_logits_).subspan(static_cast<size_t>(row) * vocabulary, vocabulary);
}

}  // namespace pkv
