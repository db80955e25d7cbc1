// Loading backends from libraries: what works, and the one line for each thing that may be missing.
#include "kernels/plugin_loader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

namespace pkv {
namespace {

using testing::HasSubstr;

std::string path_of(const std::string& name) { return std::string(PKV_PLUGIN_FOLDER) + "/" + name + ".so"; }

std::string refusal(const std::string& path) {
  const absl::Status status = BackendPlugin::load(path).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << path;
  EXPECT_THAT(std::string(status.message()), testing::Not(HasSubstr("\n")));
  return std::string(status.message());
}

TEST(PluginLoaderTest, ABackendFromALibraryComputes) {
  const BackendPlugin plugin = *BackendPlugin::load(path_of("plugin_none"));
  EXPECT_EQ(*plugin.probe(3), "simulated device 3");
  for (const bool exact : {true, false}) {
    const std::unique_ptr<Backend> backend = *plugin.make(0, {.device = "cuda:0", .exact = exact});
    EXPECT_EQ(backend->name(), "cuda");
    const Tensor x = *backend->allocate(1, 3, DType::kF32);
    const float before[] = {1, 2, 3};
    backend->upload(x.view(), before);
    backend->add_bias(x.view(), x.view());
    float after[3] = {};
    backend->fetch({after, x.view()});
    EXPECT_THAT(after, testing::ElementsAre(2, 4, 6));
    EXPECT_TRUE(backend->status().ok());
  }
}

TEST(PluginLoaderTest, WhatIsMissingIsNamed) {
  EXPECT_EQ(refusal(path_of("plugin_nowhere")), "there is no " + path_of("plugin_nowhere"));
  EXPECT_THAT(refusal(path_of("plugin_no_entry")), HasSubstr("pkv_plugin_make is missing"));
  EXPECT_THAT(refusal(path_of("plugin_other_build")), HasSubstr("was not built with this program (of yesterday"));
  const std::string text = testing::TempDir() + "/plugin_text.so";
  std::ofstream(text) << "no library";
  EXPECT_THAT(refusal(text), HasSubstr("cannot be loaded: " + text));
}

TEST(PluginLoaderTest, ADeviceThatIsMissingIsNamed) {
  const BackendPlugin plugin = *BackendPlugin::load(path_of("plugin_no_device"));
  EXPECT_EQ(plugin.probe(7).status(), absl::FailedPreconditionError("no GPU 7"));
  EXPECT_EQ(plugin.make(7, {}).status(), absl::FailedPreconditionError("no GPU 7"));
}

// Beside this test there is no library of a GPU.
TEST(ChooseDeviceTest, WithoutAGpuItIsTheCpuAndSaysWhy) {
  const DeviceChoice choice = choose_device();
  if (choice.device != "cpu") GTEST_SKIP() << choice.why;
  EXPECT_THAT(choice.why, HasSubstr("no GPU is used: "));
}

TEST(MakeBackendTest, ACudaDeviceThatIsMissingIsNamed) {
  if (choose_device().device != "cpu") GTEST_SKIP() << choose_device().why;
  const absl::Status status = make_backend({.device = "cuda:0"}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("device \"cuda:0\": "));
  for (const char* device : {"cuda", "cuda:", "cuda:x", "cuda:1x", "cuda:-1", "gpu"}) {
    EXPECT_EQ(make_backend({.device = device}).status().code(), absl::StatusCode::kInvalidArgument) << device;
  }
}

}  // namespace
}  // namespace pkv
