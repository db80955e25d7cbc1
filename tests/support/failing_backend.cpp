// What a lost device still does: nothing, and zeros for whoever reads.
#include "tests/support/failing_backend.h"

#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace pkv::test {

void FailingBackend::fail_at(int64_t n) {
  operations_ = 0;
  fail_at_ = n;
  failed_ = seen_ = false;
}

void FailingBackend::run(std::string_view, absl::FunctionRef<void()> forward) {
  while (hangs_) absl::SleepFor(absl::Seconds(1));
  if (++operations_ >= fail_at_) failed_ = true;
  if (!failed_) forward();
}

absl::Status FailingBackend::reserve(std::string_view, size_t bytes) {
  if (!has_memory_) return absl::ResourceExhaustedError(absl::StrCat("no device memory for ", bytes, " bytes"));
  return status();
}

void FailingBackend::sync() {
  ForwardingBackend::sync();
  seen_ = failed_.load();
}

void FailingBackend::fetch(std::span<const Fetch> reads) {
  ForwardingBackend::fetch(reads);
  seen_ = failed_.load();
  if (!failed_) return;
  for (const Fetch& read : reads) {
    std::memset(read.to, 0, static_cast<size_t>(read.from.rows * read.from.cols) * dtype_bytes(read.from.dtype));
  }
}

}  // namespace pkv::test
