// pyramidkv-server on a device that fails at its next operation when the process gets SIGUSR1, and never ends it at
// SIGUSR2.
#include <atomic>
#include <csignal>
#include <memory>
#include <utility>

#include "server/program.h"
#include "tests/support/failing_backend.h"

namespace {

std::atomic<pkv::test::FailingBackend*> g_device = nullptr;

void fail(int signal) {
  pkv::test::FailingBackend* device = g_device;
  if (device == nullptr) return;
  if (signal == SIGUSR1) {
    device->fail_soon();
  } else {
    device->hang_soon();
  }
}

absl::StatusOr<std::unique_ptr<pkv::Backend>> make_failing(const pkv::BackendOptions& options) {
  absl::StatusOr<std::unique_ptr<pkv::Backend>> made = pkv::make_backend(options);
  if (!made.ok()) return made;
  auto failing = std::make_unique<pkv::test::FailingBackend>(*std::move(made));
  g_device = failing.get();
  return failing;
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGUSR1, fail);
  std::signal(SIGUSR2, fail);
  return pkv::run_program(argc, argv, {.make_backend = make_failing});
}
