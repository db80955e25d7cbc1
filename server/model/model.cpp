// The registry of architectures, and what all models have in common.
#include "server/model/model.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <stop_token>
#include <thread>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/status_macros.h"
#include "kernels/tensor_set.h"
#include "server/model/architectures.h"
#include "server/model/errors.h"
#include "server/model/value_factors.h"

namespace pkv {
namespace {

struct Architecture {
  std::string_view name;  // general.architecture
  absl::StatusOr<std::unique_ptr<Model>> (*load)(const GgufFile& file, Backend& backend, const Loading& loading);
};

constexpr Architecture kArchitectures[] = {
    {"llama", load_llama},
    {"qwen2", load_qwen2},
    {"qwen3", load_qwen3},
};

absl::StatusOr<std::unique_ptr<Model>> load_by_architecture(const GgufFile& file, Backend& backend,
                                                            const Loading& loading) {
  PKV_ASSIGN_OR_RETURN(const std::string wanted, file.string("general.architecture"));
  std::string names;
  for (const Architecture& architecture : kArchitectures) {
    if (architecture.name == wanted) return architecture.load(file, backend, loading);
    names += (names.empty() ? "" : ", ") + std::string(architecture.name);
  }
  return unimplemented("key 'general.architecture': '", wanted, "' is not supported; this build has ", names);
}

// Has the kernel read the tensors, one after the other, a piece at a time: reading on demand, it fetches some pages
// when somebody waits for one already.
void read_ahead(const GgufFile& file, const std::stop_token& stop) {
  constexpr uintptr_t kPiece = 4 << 20;
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  for (const GgufTensor& tensor : file.tensors()) {
    const auto begin = reinterpret_cast<uintptr_t>(tensor.data.data()), end = begin + tensor.data.size();
    for (uintptr_t piece = begin / kPiece * kPiece; piece < end; piece += kPiece) {
      if (stop.stop_requested()) return;
      const uintptr_t first = std::max(piece, begin / page * page);
      madvise(reinterpret_cast<void*>(first), std::min(piece + kPiece, end) - first, MADV_WILLNEED);  // or it does not
    }
  }
}

}  // namespace

absl::StatusOr<StepScratch> Model::make_scratch(int32_t rows) const {
  const ModelShape& s = shape();
  const int64_t queries = int64_t{s.q_heads} * s.head_dim, entries = int64_t{s.kv_heads} * s.head_dim;
  const TensorSet<StepScratch> tensors = {
      {&StepScratch::normed, rows, s.width},    {&StepScratch::q, rows, queries},
      {&StepScratch::k, rows, entries},         {&StepScratch::v, rows, entries},
      {&StepScratch::attention, rows, queries}, {&StepScratch::gate, rows, s.feed_forward},
      {&StepScratch::up, rows, s.feed_forward}, {&StepScratch::lse, rows, s.q_heads},
  };
  StepScratch scratch{.rows = rows, .bytes = tensors.bytes()};
  PKV_RETURN_IF_ERROR(tensors.allocate(backend(), scratch));
  return scratch;
}

absl::StatusOr<std::unique_ptr<Model>> load_model(const GgufFile& file, Backend& backend, const Loading& loading) {
  const std::jthread reading([&file](const std::stop_token& stop) { read_ahead(file, stop); });
  absl::StatusOr<std::unique_ptr<Model>> model = load_by_architecture(file, backend, loading);
  if (model.ok()) {
    PKV_ASSIGN_OR_RETURN((*model)->value_factors_, make_value_factors(file, (*model)->shape(), backend, loading.stop));
    return model;
  }
  return absl::Status(model.status().code(), absl::StrCat(file.path(), ": ", std::string(model.status().message())));
}

}  // namespace pkv
