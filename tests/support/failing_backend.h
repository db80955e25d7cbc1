// A backend whose n-th operation fails, and everything after it. As of a device, the host hears of it late: where it
// next waits for a result. Its memory can run out, too, which is no failure.
#pragma once

#include <atomic>
#include <cstdint>
#include <limits>

#include "tests/support/forwarding_backend.h"

namespace pkv::test {

class FailingBackend : public ForwardingBackend {
 public:
  using ForwardingBackend::ForwardingBackend;

  // The n-th operation from now on fails, the first being 1. An earlier failure is forgotten. Not while one runs.
  void fail_at(int64_t n);
  // The next operation fails. Any thread, and a signal handler, too.
  void fail_soon() { fail_at_ = 0; }
  // The next operation never ends, as of a device that does not answer. As fail_soon().
  void hang_soon() { hangs_ = true; }
  // Whether there is memory for what is allocated from now on. Any thread, and a signal handler, too.
  void set_memory(bool has) { has_memory_ = has; }
  bool has_memory() const { return has_memory_; }
  void never_fail() { fail_at(std::numeric_limits<int64_t>::max()); }
  // Operations since fail_at() or never_fail().
  int64_t operations() const { return operations_; }

  absl::Status status() const override { return seen_ ? failure() : ForwardingBackend::status(); }
  void sync() override;
  using Backend::fetch;
  void fetch(std::span<const Fetch> reads) override;

  static absl::Status failure() { return absl::InternalError("the device is lost"); }

 protected:
  void run(std::string_view operation, absl::FunctionRef<void()> forward) override;
  absl::Status reserve(std::string_view call, size_t bytes) override;

 private:
  std::atomic<int64_t> operations_ = 0;
  std::atomic<int64_t> fail_at_ = std::numeric_limits<int64_t>::max();
  std::atomic<bool> hangs_ = false;
  std::atomic<bool> failed_ = false;
  std::atomic<bool> seen_ = false;  // by the host
  std::atomic<bool> has_memory_ = true;
};

}  // namespace pkv::test
