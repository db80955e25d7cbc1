// The reference backend's memory: plain host allocations and dequantised weights.
#include "kernels/reference/reference_backend.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <new>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/check.h"

namespace pkv {

absl::StatusOr<Tensor> ReferenceBackend::allocate(int64_t rows, int64_t cols, DType dtype) {
  PKV_CHECK(rows >= 0 && cols >= 0, "negative extent");
  constexpr std::align_val_t kAlignment{64};
  const size_t bytes = static_cast<size_t>(rows * cols) * dtype_bytes(dtype);
  void* data = ::operator new(bytes, kAlignment, std::nothrow);
  if (data == nullptr) return absl::ResourceExhaustedError(absl::StrCat("no host memory for ", bytes, " bytes"));
  std::shared_ptr<void> storage(data, [](void* memory) { ::operator delete(memory, kAlignment); });
  return Tensor(std::move(storage), TensorView{data, dtype, rows, cols, cols});
}

absl::StatusOr<std::shared_ptr<std::byte>> ReferenceBackend::allocate_lazy(size_t bytes) {
  const size_t mapped = std::max<size_t>(bytes, 1);
  void* data = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) return absl::ResourceExhaustedError(absl::StrCat("no address space for ", bytes, " bytes"));
  return std::shared_ptr<std::byte>(static_cast<std::byte*>(data), [mapped](std::byte* p) { munmap(p, mapped); });
}

namespace {

std::byte* row_bytes(const TensorView& view, int64_t row) {
  return static_cast<std::byte*>(view.data) + static_cast<size_t>(row * view.row_stride) * dtype_bytes(view.dtype);
}

size_t dense_row_bytes(const TensorView& view) { return static_cast<size_t>(view.cols) * dtype_bytes(view.dtype); }

}  // namespace

void ReferenceBackend::upload(const TensorView& to, const void* from) {
  const size_t bytes = dense_row_bytes(to);
  if (bytes == 0) return;
  for (int64_t r = 0; r < to.rows; ++r)
    std::memcpy(row_bytes(to, r), static_cast<const std::byte*>(from) + r * bytes, bytes);
}

void ReferenceBackend::download(void* to, const TensorView& from) {
  const size_t bytes = dense_row_bytes(from);
  if (bytes == 0) return;
  for (int64_t r = 0; r < from.rows; ++r)
    std::memcpy(static_cast<std::byte*>(to) + r * bytes, row_bytes(from, r), bytes);
}

void ReferenceBackend::copy(const TensorView& to, const TensorView& from) {
  PKV_CHECK(to.rows == from.rows && to.cols == from.cols && to.dtype == from.dtype, "copy between unequal views");
  const size_t bytes = dense_row_bytes(to);
  if (bytes == 0) return;
  for (int64_t r = 0; r < to.rows; ++r) std::memmove(row_bytes(to, r), row_bytes(from, r), bytes);
}

void ReferenceBackend::fill(const TensorView& view, float value) {
  for (int64_t r = 0; r < view.rows; ++r) std::fill_n(view.f32_row(r), view.cols, value);
}

absl::StatusOr<std::unique_ptr<Weight>> ReferenceBackend::prepare_weight(const WeightSource& source) {
  const QuantTraits& traits = quant_traits(source.type);
  PKV_CHECK(source.rows > 0 && source.cols > 0 && source.cols % traits.block_size == 0,
            "weight rows are not whole blocks");
  const int64_t count = source.rows * source.cols;
  std::unique_ptr<float[]> values(new (std::nothrow) float[static_cast<size_t>(count)]);
  if (values == nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no host memory for a weight of ", count * sizeof(float), " bytes"));
  }
  traits.decode(source.data, values.get(), count);
  return std::make_unique<ReferenceWeight>(source.rows, source.cols, std::move(values));
}

std::unique_ptr<Backend> make_reference_backend() { return std::make_unique<ReferenceBackend>(); }

}  // namespace pkv
