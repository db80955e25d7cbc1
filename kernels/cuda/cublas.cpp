// cuBLASLt chooses how it computes by the number of rows and by alignment, so that a row's result would depend on its
// neighbours. Every product is therefore one of Blas::kRows rows, by the algorithm that was chosen once for the
// weight's shape; rows that are not there are computed from whatever lies in the room for them and thrown away.
#include "kernels/cuda/cublas.h"

#include <cublasLt.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/status_macros.h"

namespace pkv {
namespace {

constexpr size_t kWorkspaceBytes = size_t{32} << 20;  // what cuBLAS recommends for sm_90
constexpr int64_t kAligned = 4;                       // float32 numbers in 16 bytes

int64_t aligned(int64_t count) { return (count + kAligned - 1) / kAligned * kAligned; }

gpu::Rows rows_of(const TensorView& view) { return {view.data, static_cast<size_t>(view.row_stride) * sizeof(float)}; }

// Column-major matrices: out^T [N, rows] = w [N, K] x^T [K, rows], factors being K-major as they lie there.
struct Layouts {
  cublasLtMatrixLayoutOpaque_t weights, x, out;

  Layouts(int64_t outputs, int64_t inputs, int64_t out_stride) {
    const auto columns = static_cast<uint64_t>(outputs), k = static_cast<uint64_t>(inputs);
    constexpr auto kRows = static_cast<uint64_t>(gpu::Blas::kRows);
    cublasLtMatrixLayoutInit(&weights, CUDA_R_16BF, k, columns, inputs);
    cublasLtMatrixLayoutInit(&x, CUDA_R_16BF, k, kRows, inputs);
    cublasLtMatrixLayoutInit(&out, CUDA_R_32F, columns, kRows, out_stride);
  }
};

class CublasLt final : public gpu::Blas {
 public:
  explicit CublasLt(gpu::Stream& stream) : stream_(stream) {}
  ~CublasLt() override {
    if (handle_ != nullptr) cublasLtDestroy(handle_);
    if (workspace_ != nullptr) stream_.release(workspace_);
  }

  absl::Status open() {
    stream_.native();  // makes the device this thread's
    if (cublasLtCreate(&handle_) != CUBLAS_STATUS_SUCCESS) return absl::InternalError("cublasLtCreate failed");
    workspace_ = stream_.allocate(kWorkspaceBytes);
    if (workspace_ == nullptr) return absl::ResourceExhaustedError("no device memory for the workspace of cuBLASLt");
    const cublasOperation_t transposed = CUBLAS_OP_T;
    if (cublasLtMatmulDescInit(&operation_, CUBLAS_COMPUTE_32F, CUDA_R_32F) != CUBLAS_STATUS_SUCCESS ||
        cublasLtMatmulDescSetAttribute(&operation_, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof(transposed)) !=
            CUBLAS_STATUS_SUCCESS) {
      return absl::InternalError("cuBLASLt describes no product");
    }
    return absl::OkStatus();
  }

  void multiply(const gpu::BfloatFactors& factors, bool accumulate, const TensorView& out) override {
    gpu::BfloatFactors part = factors;
    for (int64_t row = 0; row < out.rows && !stream_.failed(); row += kRows, part.x += kRows * factors.inputs) {
      multiply_part(part, accumulate, out.slice_rows(row, std::min(kRows, out.rows - row)));
    }
  }

 private:
  void multiply_part(const gpu::BfloatFactors& factors, bool accumulate, const TensorView& out) {
    const bool fits = out.rows == kRows && out.row_stride % kAligned == 0 &&
                      reinterpret_cast<uintptr_t>(out.data) % (kAligned * sizeof(float)) == 0;
    if (fits) return product(factors, accumulate, out);
    const int64_t stride = aligned(out.cols);
    const gpu::Scratch room(stream_, static_cast<size_t>(kRows * stride) * sizeof(float));
    if (stream_.failed()) return;
    const TensorView padded{room.as<void>(), DType::kF32, out.rows, out.cols, stride};
    const size_t bytes = static_cast<size_t>(out.cols) * sizeof(float);
    if (accumulate) stream_.copy(rows_of(padded), rows_of(out), bytes, static_cast<size_t>(out.rows));
    product(factors, accumulate, padded);
    stream_.copy(rows_of(out), rows_of(padded), bytes, static_cast<size_t>(out.rows));
  }

  // `out` has room for kRows rows.
  void product(const gpu::BfloatFactors& factors, bool accumulate, const TensorView& out) {
    auto* const native = static_cast<cudaStream_t>(stream_.native());  // makes the device this thread's
    const cublasLtMatmulAlgo_t* algorithm = algorithm_for(out.cols, factors.inputs);
    if (algorithm == nullptr) return;
    Layouts layouts(out.cols, factors.inputs, out.row_stride);
    const float one = 1, before = accumulate ? 1 : 0;
    check("cublasLtMatmul", cublasLtMatmul(handle_, &operation_, &one, factors.weights, &layouts.weights, factors.x,
                                           &layouts.x, &before, out.data, &layouts.out, out.data, &layouts.out,
                                           algorithm, workspace_, kWorkspaceBytes, native));
  }

  // nullptr where there is none, and the stream has failed.
  const cublasLtMatmulAlgo_t* algorithm_for(int64_t outputs, int64_t inputs) {
    const auto [known, is_new] = algorithms_.try_emplace({outputs, inputs});
    if (!is_new) return &known->second;
    // Parts of a sum may only be added up in an order that is always the same.
    const uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    const uint64_t workspace = kWorkspaceBytes;
    cublasLtMatmulPreferenceOpaque_t preference;
    Layouts layouts(outputs, inputs, aligned(outputs));
    cublasLtMatmulHeuristicResult_t found{};
    int count = 0;
    if (check("cublasLtMatmulPreferenceInit", cublasLtMatmulPreferenceInit(&preference)) &&
        check("the workspace of cuBLASLt",
              cublasLtMatmulPreferenceSetAttribute(&preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace,
                                                   sizeof(workspace))) &&
        check("the reductions of cuBLASLt",
              cublasLtMatmulPreferenceSetAttribute(&preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reductions,
                                                   sizeof(reductions))) &&
        check("cublasLtMatmulAlgoGetHeuristic",
              cublasLtMatmulAlgoGetHeuristic(handle_, &operation_, &layouts.weights, &layouts.x, &layouts.out,
                                             &layouts.out, &preference, 1, &found, &count)) &&
        count == 0) {
      stream_.fail(absl::StrCat("cuBLASLt has no product of ", inputs, " inputs and ", outputs, " outputs"));
    }
    known->second = found.algo;
    return stream_.failed() ? nullptr : &known->second;
  }

  bool check(const char* what, cublasStatus_t status) {
    if (status == CUBLAS_STATUS_SUCCESS) return true;
    stream_.fail(absl::StrCat(what, ": ", cublasLtGetStatusString(status)));
    return false;
  }

  gpu::Stream& stream_;
  cublasLtHandle_t handle_ = nullptr;
  void* workspace_ = nullptr;
  cublasLtMatmulDescOpaque_t operation_;
  std::map<std::pair<int64_t, int64_t>, cublasLtMatmulAlgo_t> algorithms_;  // of outputs and inputs
};

}  // namespace

absl::StatusOr<std::unique_ptr<gpu::Blas>> make_cublas(gpu::Stream& stream) {
  auto blas = std::make_unique<CublasLt>(stream);
  PKV_RETURN_IF_ERROR(blas->open());
  return std::unique_ptr<gpu::Blas>(std::move(blas));
}

}  // namespace pkv
