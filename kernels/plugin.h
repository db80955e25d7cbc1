// What a backend that is a library of its own has to offer: three C functions. The program and the library are one
// build as far as C++ goes (classes with virtual functions and standard strings cross the border), which `abi` is there
// to say.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/backend.h"

namespace pkv {

constexpr const char* kPluginAbi = "pkv_plugin_abi";
constexpr const char* kPluginProbe = "pkv_plugin_probe";
constexpr const char* kPluginMake = "pkv_plugin_make";

extern "C" {
// Of the headers of kernels/ and the compiler (kernels/CMakeLists.txt).
using PluginAbi = const char*();
// 0: the device can be used, and `message` is which one it is. Otherwise `message` is the one thing that is missing.
using PluginProbe = int(int device, char* message, size_t size);
// A backend, the caller's from now on; nullptr where there is none, and `message` says why.
using PluginMake = Backend*(int device, const BackendOptions* options, char* message, size_t size);
}

constexpr size_t kPluginMessageBytes = 1024;

}  // namespace pkv
