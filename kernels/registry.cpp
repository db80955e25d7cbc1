// Makes the backend a configuration names.
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "kernels/backend.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/reference/reference_backend.h"

namespace pkv {

absl::StatusOr<std::unique_ptr<Backend>> make_backend(const BackendOptions& options) {
  if (options.device == "cpu") return make_cpu_backend(options);
  if (options.device == "reference") return make_reference_backend();
  if (absl::StartsWith(options.device, "cuda:")) {
    return absl::FailedPreconditionError(
        absl::StrCat("device \"", options.device, "\": this build has no CUDA backend"));
  }
  return absl::InvalidArgumentError(absl::StrCat("unknown device \"", options.device, "\"; known: cpu, reference"));
}

}  // namespace pkv
