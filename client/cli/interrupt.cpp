#include "client/cli/interrupt.h"

#include <atomic>
#include <chrono>

namespace pkv::client {
namespace {

// A signal handler has no other place to leave word.
std::atomic<bool> interrupted{false};
static_assert(std::atomic<bool>::is_always_lock_free);

void remember(int) { interrupted.store(true); }

}  // namespace

InterruptGuard::InterruptGuard() {
  sigaction(SIGINT, nullptr, &before_);
  let_reads_return(false);  // a write that is interrupted would spoil its stream
}

InterruptGuard::~InterruptGuard() { sigaction(SIGINT, &before_, nullptr); }

void InterruptGuard::let_reads_return(bool wanted) {
  struct sigaction action {};
  action.sa_handler = remember;
  action.sa_flags = wanted ? 0 : SA_RESTART;
  sigaction(SIGINT, &action, nullptr);
}

bool InterruptGuard::taken() { return interrupted.exchange(false); }

StopOnInterrupt::StopOnInterrupt()
    : watcher_([this](const std::stop_token& over) {
        while (!over.stop_requested()) {
          if (InterruptGuard::taken()) stop_.request_stop();
          std::this_thread::sleep_for(std::chrono::milliseconds(20));
        }
      }) {}

}  // namespace pkv::client
