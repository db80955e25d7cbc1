// Gram matrices of the heads' parts of the output projection, and their Cholesky factors.
#include "server/model/value_factors.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/quant.h"
#include "kernels/status_macros.h"

namespace pkv {
namespace {

// Outputs whose products are added up in float32 before they go into a sum in float64. A multiple of kRowsAtOnce.
constexpr int64_t kOutputsAtOnce = 32;
constexpr size_t kRowsAtOnce = 8;

// products[j] += x[r] * rows[r][j] for j < count, r by r.
template <size_t kRows>
void add_rows(const float* const (&rows)[kRows], const float (&x)[kRows], size_t count, float* __restrict products) {
  for (size_t j = 0; j < count; ++j) {
    float sum = products[j];
    for (size_t r = 0; r < kRows; ++r) sum += x[r] * rows[r][j];
    products[j] = sum;
  }
}

// grams[h][i][j], j <= i, += w[o][h * d + i] * w[o][h * d + j] over the kOutputsAtOnce rows o of `weights`, [][heads *
// d]. kRowsAtOnce of them pass over a sum at once, in their order.
void add_products(const std::vector<float>& weights, int32_t heads, int32_t head_dim, std::vector<double>& grams) {
  const auto d = static_cast<size_t>(head_dim), width = static_cast<size_t>(heads) * d;
  std::vector<float> products(d);
  for (size_t head = 0; head < static_cast<size_t>(heads); ++head) {
    for (size_t i = 0; i < d; ++i) {
      std::fill(products.begin(), products.end(), 0.0f);
      for (size_t first = head * d; first < weights.size(); first += kRowsAtOnce * width) {
        const float* rows[kRowsAtOnce];
        float x[kRowsAtOnce];
        for (size_t r = 0; r < kRowsAtOnce; ++r) {
          rows[r] = weights.data() + first + r * width;
          x[r] = rows[r][i];
        }
        add_rows(rows, x, i + 1, products.data());
      }
      double* gram = grams.data() + (head * d + i) * d;
      for (size_t j = 0; j <= i; ++j) gram[j] += static_cast<double>(products[j]);
    }
  }
}

// The lower triangular R with R R^T = gram, [d][d], in place; zeros above the diagonal. A direction in which there is
// nothing gets nothing.
void cholesky(double* gram, size_t d) {
  for (size_t j = 0; j < d; ++j) {
    double* row = gram + j * d;
    double pivot = row[j];
    const double least = 1e-12 * pivot;
    for (size_t k = 0; k < j; ++k) pivot -= row[k] * row[k];
    row[j] = pivot > least ? std::sqrt(pivot) : 0.0;
    std::fill(row + j + 1, row + d, 0.0);
    for (size_t i = j + 1; i < d; ++i) {
      double product = gram[i * d + j];
      for (size_t k = 0; k < j; ++k) product -= gram[i * d + k] * row[k];
      gram[i * d + j] = row[j] > 0 ? product / row[j] : 0.0;
    }
  }
}

}  // namespace

absl::StatusOr<Tensor> make_value_factors(const GgufFile& file, const ModelShape& shape, Backend& backend,
                                          const std::stop_token& stop) {
  const int64_t d = shape.head_dim, width = shape.q_heads * d, outputs = shape.width;
  PKV_ASSIGN_OR_RETURN(Tensor factors, backend.allocate(shape.layers * width, d, DType::kF32));
  std::vector<double> grams(static_cast<size_t>(width * d));
  std::vector<float> weights, rows;
  for (int32_t layer = 0; layer < shape.layers; ++layer) {
    if (stop.stop_requested()) return absl::CancelledError("loading was given up");
    PKV_ASSIGN_OR_RETURN(const GgufTensor* tensor,
                         file.tensor(absl::StrCat("blk.", layer, ".attn_output.weight"), std::vector{width, outputs}));
    const QuantTraits& traits = quant_traits(tensor->type);
    const size_t row_bytes = tensor->data.size() / static_cast<size_t>(outputs);
    std::fill(grams.begin(), grams.end(), 0.0);
    for (int64_t first = 0; first < outputs; first += kOutputsAtOnce) {
      const int64_t count = std::min(kOutputsAtOnce, outputs - first);
      weights.assign(static_cast<size_t>(kOutputsAtOnce * width), 0.0f);  // zeros where there are no more outputs
      traits.decode(tensor->data.data() + static_cast<size_t>(first) * row_bytes, weights.data(), count * width);
      add_products(weights, shape.q_heads, shape.head_dim, grams);
    }
    for (int32_t head = 0; head < shape.q_heads; ++head) {
      cholesky(grams.data() + head * d * d, static_cast<size_t>(d));
    }
    rows.assign(grams.begin(), grams.end());
    backend.upload(factors.view().slice_rows(layer * width, width), rows.data());
  }
  return factors;
}

}  // namespace pkv
