// pyramidkv-server on a device that gives trouble when a test says so. SIGUSR1: its next operation fails. SIGUSR2: it
// never ends. SIGRTMIN: there is no memory for anything more, until the next one. Where the variable PKV_DEVICE_AFTER
// names a pipe, there is no device before its other end has been opened and closed: until then the model is loading.
#include <atomic>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <utility>

#include "server/program.h"
#include "tests/support/failing_backend.h"

namespace {

// No test waits for minutes.
constexpr absl::Duration kStallLimit = absl::Seconds(1);

std::atomic<pkv::test::FailingBackend*> g_device = nullptr;

void trouble(int signal) {
  pkv::test::FailingBackend* device = g_device;
  if (device == nullptr) return;
  if (signal == SIGUSR1) {
    device->fail_soon();
  } else if (signal == SIGUSR2) {
    device->hang_soon();
  } else {
    device->set_memory(!device->has_memory());
  }
}

absl::StatusOr<std::unique_ptr<pkv::Backend>> make_failing(const pkv::BackendOptions& options) {
  if (const char* pipe = std::getenv("PKV_DEVICE_AFTER")) std::ifstream(pipe).get();
  absl::StatusOr<std::unique_ptr<pkv::Backend>> made = pkv::make_backend(options);
  if (!made.ok()) return made;
  auto failing = std::make_unique<pkv::test::FailingBackend>(*std::move(made));
  g_device = failing.get();
  return failing;
}

}  // namespace

int main(int argc, char** argv) {
  for (const int signal : {SIGUSR1, SIGUSR2, SIGRTMIN}) std::signal(signal, trouble);
  return pkv::run_program(argc, argv, {.stall_limit = kStallLimit, .make_backend = make_failing});
}
