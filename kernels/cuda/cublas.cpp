// cuBLAS chooses how it computes by the number of rows, so that a row's result would depend on its neighbours. Every
// product is therefore one of a fixed number of rows; rows that are not there are computed from whatever
// lies in the room for them and thrown away.
#include "kernels/cuda/cublas.h"

#include <cublas_v2.h>

#include <algorithm>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/status_macros.h"

namespace pkv {
namespace {

constexpr int64_t kRows = 256;
constexpr size_t kWorkspaceBytes = size_t{32} << 20;  // what cuBLAS recommends for sm_90

size_t bytes_of(const TensorView& view) { return static_cast<size_t>(view.cols) * sizeof(float); }
gpu::Rows rows_of(const TensorView& view) { return {view.data, static_cast<size_t>(view.row_stride) * sizeof(float)}; }

class Cublas final : public gpu::Blas {
 public:
  explicit Cublas(gpu::Stream& stream) : stream_(stream) {}
  ~Cublas() override {
    if (handle_ != nullptr) cublasDestroy(handle_);
    if (workspace_ != nullptr) stream_.release(workspace_);
  }

  absl::Status open() {
    void* native = stream_.native();
    if (cublasCreate(&handle_) != CUBLAS_STATUS_SUCCESS) return absl::InternalError("cublasCreate failed");
    workspace_ = stream_.allocate(kWorkspaceBytes);
    if (workspace_ == nullptr) return absl::ResourceExhaustedError("no device memory for the workspace of cuBLAS");
    if (cublasSetStream(handle_, static_cast<cudaStream_t>(native)) != CUBLAS_STATUS_SUCCESS ||
        cublasSetWorkspace(handle_, workspace_, kWorkspaceBytes) != CUBLAS_STATUS_SUCCESS) {
      return absl::InternalError("cuBLAS takes no stream");
    }
    return absl::OkStatus();
  }

  void multiply(const TensorView& x, const float* w, bool accumulate, const TensorView& out) override {
    for (int64_t row = 0; row < x.rows && !stream_.failed(); row += kRows) {
      const int64_t there = std::min(kRows, x.rows - row);
      multiply_padded(x.slice_rows(row, there), w, accumulate, kRows, out.slice_rows(row, there));
    }
  }

 private:
  void multiply_padded(const TensorView& x, const float* w, bool accumulate, int64_t rows, const TensorView& out) {
    if (x.rows == rows) return product(x, w, accumulate, rows, out);
    const auto room_for = [rows](const TensorView& view) { return static_cast<size_t>(rows) * bytes_of(view); };
    const gpu::Scratch x_memory(stream_, room_for(x)), out_memory(stream_, room_for(out));
    if (stream_.failed()) return;
    const TensorView padded_x{x_memory.as<void>(), DType::kF32, x.rows, x.cols, x.cols};
    const TensorView padded_out{out_memory.as<void>(), DType::kF32, x.rows, out.cols, out.cols};
    stream_.copy(rows_of(padded_x), rows_of(x), bytes_of(x), static_cast<size_t>(x.rows));
    if (accumulate) stream_.copy(rows_of(padded_out), rows_of(out), bytes_of(out), static_cast<size_t>(x.rows));
    product(padded_x, w, accumulate, rows, padded_out);
    stream_.copy(rows_of(out), rows_of(padded_out), bytes_of(out), static_cast<size_t>(x.rows));
  }

  // cuBLAS is column-major: out^T [N, rows] = w [N, K] x^T [K, rows], w being K-major as it lies there.
  void product(const TensorView& x, const float* w, bool accumulate, int64_t rows, const TensorView& out) {
    const float one = 1, before = accumulate ? 1 : 0;
    stream_.native();  // makes the device this thread's
    const cublasStatus_t status = cublasGemmEx(
        handle_, CUBLAS_OP_T, CUBLAS_OP_N, static_cast<int>(out.cols), static_cast<int>(rows), static_cast<int>(x.cols),
        &one, w, CUDA_R_32F, static_cast<int>(x.cols), x.data, CUDA_R_32F, static_cast<int>(x.row_stride), &before,
        out.data, CUDA_R_32F, static_cast<int>(out.row_stride), CUBLAS_COMPUTE_32F_PEDANTIC, CUBLAS_GEMM_DEFAULT);
    if (status != CUBLAS_STATUS_SUCCESS) stream_.fail(absl::StrCat("cublasGemmEx: ", cublasGetStatusString(status)));
  }

  gpu::Stream& stream_;
  cublasHandle_t handle_ = nullptr;
  void* workspace_ = nullptr;
};

}  // namespace

absl::StatusOr<std::unique_ptr<gpu::Blas>> make_cublas(gpu::Stream& stream) {
  auto blas = std::make_unique<Cublas>(stream);
  PKV_RETURN_IF_ERROR(blas->open());
  return std::unique_ptr<gpu::Blas>(std::move(blas));
}

}  // namespace pkv
