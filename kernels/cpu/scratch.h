// Reusable working memory that grows to what is asked of it.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>

#include "kernels/check.h"

namespace pkv {

class Scratch {
 public:
  // At least `bytes`, 64-byte aligned, content undefined; valid until the next call.
  void* reserve(size_t bytes) {
    if (bytes > size_) {
      size_ = (bytes + 4095) / 4096 * 4096;
      memory_.reset(std::aligned_alloc(4096, size_));
      PKV_CHECK(memory_ != nullptr, "no memory for the scratch buffers of a kernel");
    }
    return memory_.get();
  }
  template <typename T>
  T* reserve_as(size_t count) {
    return static_cast<T*>(reserve(count * sizeof(T)));
  }

 private:
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };
  std::unique_ptr<void, Free> memory_;
  size_t size_ = 0;
};

}  // namespace pkv
