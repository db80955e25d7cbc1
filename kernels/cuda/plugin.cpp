// libpkv_cuda.so's entry points (kernels/plugin.h).
#include "kernels/plugin.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include "kernels/cuda/cublas.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/cuda_stream.h"
#include "kernels/status_macros.h"

namespace pkv {
namespace {

void write(std::string_view text, char* message, size_t size) {
  if (size == 0) return;
  const size_t length = std::min(text.size(), size - 1);
  std::memcpy(message, text.data(), length);
  message[length] = '\0';
}

absl::StatusOr<std::unique_ptr<Backend>> make(int32_t device, const BackendOptions& options) {
  PKV_ASSIGN_OR_RETURN(std::shared_ptr<gpu::Stream> stream, make_cuda_stream(device));
  std::unique_ptr<gpu::Blas> blas;
  if (!options.exact) {
    PKV_ASSIGN_OR_RETURN(blas, make_cublas(*stream));
  }
  return CudaBackend::create(std::move(stream), std::move(blas), options.graphs);
}

}  // namespace
}  // namespace pkv

#define PKV_EXPORT extern "C" __attribute__((visibility("default")))

PKV_EXPORT const char* pkv_plugin_abi() { return PKV_PLUGIN_ABI; }

PKV_EXPORT int pkv_plugin_probe(int device, char* message, size_t size) {
  const absl::StatusOr<std::string> found = pkv::probe_cuda_device(device);
  pkv::write(found.ok() ? *found : std::string(found.status().message()), message, size);
  return found.ok() ? 0 : 1;
}

PKV_EXPORT pkv::Backend* pkv_plugin_make(int device, const pkv::BackendOptions* options, char* message, size_t size) {
  absl::StatusOr<std::unique_ptr<pkv::Backend>> made = pkv::make(device, *options);
  if (made.ok()) return made->release();
  pkv::write(std::string(made.status().message()), message, size);
  return nullptr;
}
