// pyramidkv-server on a device that gives trouble when a test says so. SIGUSR1: its next operation fails. SIGUSR2: it
// never ends. SIGRTMIN: the device has no memory for anything more, until the next one. SIGRTMIN + 1: the main thread's
// next allocations fail. Where the variable PKV_DEVICE_AFTER names a pipe, there is no device before its other end has
// been opened and closed: until then the model is loading.
#include <atomic>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <utility>

#include "server/program.h"
#include "tests/support/failing_backend.h"
#include "tests/support/failing_new.h"

namespace {

// No test waits for minutes.
constexpr absl::Duration kStallLimit = absl::Seconds(1);
constexpr int64_t kFailedAllocations = 5;

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

// A signal to the process comes to the main thread where that does not block it.
void fail_main_thread(int /*signal*/) { pkv::test::fail_allocations(0, kFailedAllocations); }

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGRTMIN + 1, fail_main_thread);
  for (const int signal : {SIGUSR1, SIGUSR2, SIGRTMIN}) std::signal(signal, trouble);
  return pkv::run_program(argc, argv, {.stall_limit = kStallLimit, .make_backend = make_failing});
}
