// Every tensor knows the count and leaves it when it goes.
#include "tests/support/metered_backend.h"

#include <utility>

#include "kernels/status_macros.h"

namespace pkv::test {

absl::StatusOr<Tensor> MeteredBackend::allocate(int64_t rows, int64_t cols, DType dtype) {
  PKV_ASSIGN_OR_RETURN(Tensor tensor, ForwardingBackend::allocate(rows, cols, dtype));
  auto held = std::make_shared<Tensor>(std::move(tensor));
  const auto bytes = static_cast<int64_t>(held->bytes());
  *live_ += bytes;
  std::shared_ptr<void> storage(held.get(), [live = live_, held, bytes](void*) { *live -= bytes; });
  return Tensor(std::move(storage), held->view());
}

}  // namespace pkv::test
