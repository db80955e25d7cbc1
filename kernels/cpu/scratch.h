// Reusable working memory that grows to what is asked of it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace pkv {

class Scratch {
 public:
  // At least `count` elements, 64-byte aligned, contents undefined; valid until a call that needs more. reserve(0):
  // what there is. std::bad_alloc where there is no memory.
  template <typename T = float>
  T* reserve(int64_t count) {
    const size_t bytes = static_cast<size_t>(count) * sizeof(T);
    if (bytes > size_) {
      size_ = (std::max(bytes, size_ + size_ / 2) + 4095) / 4096 * 4096;
      memory_.reset();
      memory_.reset(std::aligned_alloc(4096, size_));
      if (memory_ == nullptr) {
        size_ = 0;
        throw std::bad_alloc();
      }
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
