// A host array's copy in a backend's memory, for operations that take plain pointers.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "kernels/backend.h"
#include "kernels/check.h"

namespace pkv::test {

// Elements of whole 4-byte words.
template <typename T>
class BackendArray {
 public:
  static_assert(sizeof(T) % 4 == 0 && std::is_trivially_copyable_v<T>);

  BackendArray() = default;
  BackendArray(Backend& backend, std::span<const T> content) : size_(content.size()) {
    absl::StatusOr<std::shared_ptr<std::byte>> memory = backend.allocate_lazy(content.size_bytes());
    PKV_CHECK(memory.ok(), "no memory for a test's array");
    memory_ = *std::move(memory);
    const auto words = static_cast<int64_t>(content.size_bytes() / 4);
    backend.upload({memory_.get(), DType::kI32, 1, words, words}, content.data());
  }
  BackendArray(Backend& backend, std::initializer_list<T> content)
      : BackendArray(backend, std::span(content.begin(), content.size())) {}

  T* data() const { return reinterpret_cast<T*>(memory_.get()); }
  int32_t size() const { return static_cast<int32_t>(size_); }

 private:
  std::shared_ptr<std::byte> memory_;
  size_t size_ = 0;
};

inline RowSpans row_spans(const BackendArray<RowSpan>& spans) { return {spans.data(), spans.size()}; }

}  // namespace pkv::test
