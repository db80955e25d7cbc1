#include "kernels/plugin_loader.h"

#include <dlfcn.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/status_macros.h"

namespace pkv {
namespace {

constexpr const char* kCudaLibrary = "libpkv_cuda.so";
constexpr int32_t kFirstDevice = 0;

absl::Status missing(std::string what) { return absl::FailedPreconditionError(std::move(what)); }

// The entry point of that name; nullptr where there is none.
template <typename Function>
Function* entry(void* library, const char* name) {
  return reinterpret_cast<Function*>(dlsym(library, name));
}

}  // namespace

absl::StatusOr<BackendPlugin> BackendPlugin::load(const std::string& path) {
  if (access(path.c_str(), F_OK) != 0) return missing(absl::StrCat("there is no ", path));
  // Local: its symbols and those of the libraries it brings along are nobody else's.
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return missing(absl::StrCat("cannot be loaded: ", dlerror()));
  BackendPlugin plugin;
  auto* abi = entry<PluginAbi>(library, kPluginAbi);
  plugin.probe_ = entry<PluginProbe>(library, kPluginProbe);
  plugin.make_ = entry<PluginMake>(library, kPluginMake);
  if (abi == nullptr || plugin.probe_ == nullptr || plugin.make_ == nullptr) {
    return missing(
        absl::StrCat(path, " is no backend: ", kPluginAbi, ", ", kPluginProbe, " or ", kPluginMake, " is missing"));
  }
  if (std::strcmp(abi(), PKV_PLUGIN_ABI) != 0) {
    return missing(
        absl::StrCat(path, " was not built with this program (", abi(), " instead of ", PKV_PLUGIN_ABI, ")"));
  }
  return plugin;
}

absl::StatusOr<std::string> BackendPlugin::probe(int32_t device) const {
  char message[kPluginMessageBytes] = "";
  if (probe_(device, message, sizeof(message)) != 0) return missing(message);
  return std::string(message);
}

absl::StatusOr<std::unique_ptr<Backend>> BackendPlugin::make(int32_t device, const BackendOptions& options) const {
  char message[kPluginMessageBytes] = "";
  std::unique_ptr<Backend> backend(make_(device, &options, message, sizeof(message)));
  if (backend == nullptr) return missing(message);
  return backend;
}

absl::StatusOr<BackendPlugin> load_cuda_plugin() {
  std::error_code error;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) return missing(absl::StrCat("where the program lies is not known: ", error.message()));
  const std::filesystem::path beside = program.parent_path() / kCudaLibrary;
  const std::filesystem::path installed = program.parent_path().parent_path() / "lib" / "pyramidkv" / kCudaLibrary;
  if (!std::filesystem::exists(beside, error) && !std::filesystem::exists(installed, error)) {
    return missing(absl::StrCat("there is no ", kCudaLibrary, " beside the program or in ../lib/pyramidkv"));
  }
  return BackendPlugin::load((std::filesystem::exists(beside, error) ? beside : installed).string());
}

DeviceChoice choose_device() {
  const auto found = [&]() -> absl::StatusOr<std::string> {
    PKV_ASSIGN_OR_RETURN(const BackendPlugin plugin, load_cuda_plugin());
    return plugin.probe(kFirstDevice);
  }();
  if (found.ok()) return {absl::StrCat("cuda:", kFirstDevice), *found};
  return {"cpu", absl::StrCat("no GPU is used: ", std::string(found.status().message()))};
}

}  // namespace pkv
