// Counts the bytes of the tensors that are there.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "tests/support/forwarding_backend.h"

namespace pkv::test {

class MeteredBackend : public ForwardingBackend {
 public:
  using ForwardingBackend::ForwardingBackend;

  absl::StatusOr<Tensor> allocate(int64_t rows, int64_t cols, DType dtype) override;
  int64_t live() const { return *live_; }

 private:
  std::shared_ptr<std::atomic<int64_t>> live_ = std::make_shared<std::atomic<int64_t>>(0);  // the tensors' too
};

}  // namespace pkv::test
