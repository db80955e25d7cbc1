// The GPU backend, libpkv_cuda.so: loaded when it is asked for, so that one program serves machines with a GPU and
// without.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/plugin.h"

namespace pkv {

// A library that fits this program. Once loaded it stays, whatever becomes of this.
class BackendPlugin {
 public:
  // FAILED_PRECONDITION with the one thing that is missing: the file, a library that it needs, an entry point, the same
  // build.
  static absl::StatusOr<BackendPlugin> load(const std::string& path);

  // What the device is; FAILED_PRECONDITION with the one thing that is missing.
  absl::StatusOr<std::string> probe(int32_t device) const;
  absl::StatusOr<std::unique_ptr<Backend>> make(int32_t device, const BackendOptions& options) const;

 private:
  BackendPlugin() = default;
  PluginProbe* probe_ = nullptr;
  PluginMake* make_ = nullptr;
};

// That of GPUs: beside the program, or in ../lib/pyramidkv.
absl::StatusOr<BackendPlugin> load_cuda_plugin();

struct DeviceChoice {
  std::string device;  // as in BackendOptions
  std::string why;     // in one line
};
// What `auto` is on this machine: the first GPU where it can be used, else cpu.
DeviceChoice choose_device();

}  // namespace pkv
