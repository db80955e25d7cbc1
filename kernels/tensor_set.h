// The tensors of a class, listed once: what they take is known before they are there, and allocated is what was said.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <vector>

#include "absl/status/status.h"
#include "kernels/backend.h"
#include "kernels/status_macros.h"
#include "kernels/tensor.h"

namespace pkv {

template <typename Owner>
class TensorSet {
 public:
  struct Entry {
    Tensor Owner::*member = nullptr;
    int64_t rows = 0;
    int64_t cols = 0;
    DType dtype = DType::kF32;

    uint64_t bytes() const { return static_cast<uint64_t>(rows * cols) * dtype_bytes(dtype); }
  };

  TensorSet(std::initializer_list<Entry> entries) : entries_(entries) {}

  // Of all of them together.
  uint64_t bytes() const {
    uint64_t total = 0;
    for (const Entry& entry : entries_) total += entry.bytes();
    return total;
  }
  // Makes them, uninitialised; those without an element stay empty. Errors as Backend::allocate().
  absl::Status allocate(Backend& backend, Owner& owner) const {
    for (const Entry& entry : entries_) {
      if (entry.bytes() == 0) continue;
      PKV_ASSIGN_OR_RETURN(owner.*entry.member, backend.allocate(entry.rows, entry.cols, entry.dtype));
    }
    return absl::OkStatus();
  }

 private:
  std::vector<Entry> entries_;
};

}  // namespace pkv
