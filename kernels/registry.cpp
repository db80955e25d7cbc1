// Makes the backend a configuration names.
#include <charconv>

#include "absl/strings/str_cat.h"
#include "kernels/backend.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/plugin_loader.h"
#include "kernels/reference/reference_backend.h"
#include "kernels/status_macros.h"

namespace pkv {
namespace {

absl::StatusOr<std::unique_ptr<Backend>> make_cuda_backend(int32_t device, const BackendOptions& options) {
  PKV_ASSIGN_OR_RETURN(const BackendPlugin plugin, load_cuda_plugin());
  return plugin.make(device, options);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> make_backend(const BackendOptions& options) {
  const std::string_view device = options.device;
  if (device == "cpu") return make_cpu_backend(options);
  if (device == "reference") return make_reference_backend();
  constexpr std::string_view kCuda = "cuda:";
  int32_t number = -1;
  if (device.starts_with(kCuda)) {
    const char* end = device.data() + device.size();
    const auto [read_to, error] = std::from_chars(device.data() + kCuda.size(), end, number);
    if (error != std::errc() || read_to != end) number = -1;
  }
  if (number < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("unknown device \"", options.device, "\"; known: cpu, reference, cuda:N"));
  }
  absl::StatusOr<std::unique_ptr<Backend>> made = make_cuda_backend(number, options);
  if (made.ok()) return made;
  return absl::Status(made.status().code(),
                      absl::StrCat("device \"", options.device, "\": ", std::string(made.status().message())));
}

}  // namespace pkv
