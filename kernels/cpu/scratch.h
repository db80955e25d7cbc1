// Reusable working memory that grows to what is asked of it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>

#include "kernels/check.h"

namespace pkv {

class Scratch {
 public:
  // At least `count` elements, 64-byte aligned, contents undefined; valid until a call that needs more. reserve(0):
  // what there is.
  template <typename T = float>
  T* reserve(int64_t count) {
    const size_t bytes = static_cast<size_t>(count) * sizeof(T);
    if (bytes > size_) {
      size_ = (std::max(bytes, size_ + size_ / 2) + 4095) / 4096 * 4096;
      memory_.reset();
      memory_.reset(std::aligned_alloc(4096, size_));
      PKV_CHECK(memory_ != nullptr, "no memory for the scratch buffers of a kernel");
    }
    return static_cast<T*>(memory_.get());
  }

 private:
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };
  std::unique_ptr<void, Free> memory_;
  size_t size_ = 0;
};

}  // namespace pkv
