// Views of and owners for dense row-major tensors on one backend. A view is plain data and may be passed to any kernel;
// an owner keeps the memory alive and is only moved.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

// Marks a function that host code and kernels of a GPU share.
#ifdef __CUDACC__
#define PKV_HOST_DEVICE __host__ __device__
#else
#define PKV_HOST_DEVICE
#endif

namespace pkv {

enum class DType : uint8_t { kF32, kI32, kF64 };

constexpr size_t dtype_bytes(DType dtype) { return dtype == DType::kF64 ? 8 : 4; }

// Up to two extents: [rows, columns]; a vector is [1, columns]. Elements of a row are contiguous; rows are `row_stride`
// elements apart.
struct TensorView {
  void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t row_stride = 0;  // elements

  PKV_HOST_DEVICE float* f32() const { return static_cast<float*>(data); }
  PKV_HOST_DEVICE int32_t* i32() const { return static_cast<int32_t*>(data); }
  PKV_HOST_DEVICE double* f64() const { return static_cast<double*>(data); }
  PKV_HOST_DEVICE float* f32_row(int64_t row) const { return f32() + row * row_stride; }
  PKV_HOST_DEVICE int32_t* i32_row(int64_t row) const { return i32() + row * row_stride; }

  // Rows [first, first + count) of this view.
  PKV_HOST_DEVICE TensorView slice_rows(int64_t first, int64_t count) const {
    auto* base = static_cast<std::byte*>(data) + first * row_stride * static_cast<int64_t>(dtype_bytes(dtype));
    return {base, dtype, count, cols, row_stride};
  }
  // Columns [first, first + count) of this view.
  PKV_HOST_DEVICE TensorView slice_cols(int64_t first, int64_t count) const {
    auto* base = static_cast<std::byte*>(data) + first * static_cast<int64_t>(dtype_bytes(dtype));
    return {base, dtype, rows, count, row_stride};
  }
};

// Owns memory of one backend (made by Backend::allocate); freed when the last owner goes.
class Tensor {
 public:
  Tensor() = default;
  Tensor(std::shared_ptr<void> storage, TensorView view) : storage_(std::move(storage)), view_(view) {}
  Tensor(Tensor&&) = default;
  Tensor& operator=(Tensor&&) = default;
  Tensor(const Tensor&) = delete;
  Tensor& operator=(const Tensor&) = delete;

  const TensorView& view() const { return view_; }
  TensorView rows(int64_t count) const { return view_.slice_rows(0, count); }
  size_t bytes() const { return static_cast<size_t>(view_.rows * view_.row_stride) * dtype_bytes(view_.dtype); }
  explicit operator bool() const { return storage_ != nullptr; }

 private:
  std::shared_ptr<void> storage_;
  TensorView view_;
};

// Memory that the host writes and operations read (made by Backend::allocate_staged): the same bytes at two addresses,
// which are one where backend memory is host memory. Backend::commit brings the host's bytes to the device. Freed when
// the last owner goes.
class Staged {
 public:
  Staged() = default;
  Staged(std::shared_ptr<void> storage, std::byte* host, std::byte* device, size_t bytes)
      : storage_(std::move(storage)), host_(host), device_(device), bytes_(bytes) {}
  Staged(Staged&&) = default;
  Staged& operator=(Staged&&) = default;
  Staged(const Staged&) = delete;
  Staged& operator=(const Staged&) = delete;

  std::byte* host() const { return host_; }
  std::byte* device() const { return device_; }
  size_t bytes() const { return bytes_; }

 private:
  std::shared_ptr<void> storage_;
  std::byte* host_ = nullptr;
  std::byte* device_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace pkv
