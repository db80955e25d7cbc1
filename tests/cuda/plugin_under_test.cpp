// A backend library on a simulated device, or with the fault that it is compiled for.
#include <cstdio>

#include "kernels/cuda/sim/sim_backend.h"
#include "kernels/plugin.h"

#define PKV_EXPORT extern "C" __attribute__((visibility("default")))

#ifdef PKV_PLUGIN_FAULT_other_build
PKV_EXPORT const char* pkv_plugin_abi() { return "of yesterday"; }
#else
PKV_EXPORT const char* pkv_plugin_abi() { return PKV_PLUGIN_ABI; }
#endif

PKV_EXPORT int pkv_plugin_probe(int device, char* message, size_t size) {
#ifdef PKV_PLUGIN_FAULT_no_device
  std::snprintf(message, size, "no GPU %d", device);
  return 1;
#else
  std::snprintf(message, size, "simulated device %d", device);
  return 0;
#endif
}

#ifndef PKV_PLUGIN_FAULT_no_entry
PKV_EXPORT pkv::Backend* pkv_plugin_make(int device, [[maybe_unused]] const pkv::BackendOptions* options, char* message,
                                         size_t size) {
#ifdef PKV_PLUGIN_FAULT_no_device
  std::snprintf(message, size, "no GPU %d", device);
  return nullptr;
#else
  auto made = pkv::sim::make_sim_backend({}, options->exact, options->graphs);
  std::snprintf(message, size, "made on %d", device);
  return made.ok() ? made->backend.release() : nullptr;
#endif
}
#endif
