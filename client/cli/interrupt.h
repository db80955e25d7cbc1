// Ctrl-C as an event of the chat instead of its end.
#pragma once

#include <csignal>
#include <stop_token>
#include <thread>

namespace pkv::client {

// While it lives SIGINT ends no process but is remembered.
class InterruptGuard {
 public:
  InterruptGuard();
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;

  // Whether SIGINT makes a blocking read return with EINTR; at first it does not.
  static void let_reads_return(bool wanted);
  // Whether SIGINT came since the last call.
  static bool taken();

 private:
  struct sigaction before_;
};

// Turns SIGINT into a request to stop, for as long as it lives; needs an InterruptGuard.
class StopOnInterrupt {
 public:
  StopOnInterrupt();
  std::stop_token token() const { return stop_.get_token(); }

 private:
  std::stop_source stop_;
  std::jthread watcher_;
};

}  // namespace pkv::client
