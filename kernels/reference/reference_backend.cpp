// The reference backend's weights: dequantised.
#include "kernels/reference/reference_backend.h"

#include <new>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/check.h"

namespace pkv {

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
