#include "kernels/cuda/sim/sim_stream.h"

#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#include "kernels/check.h"

namespace pkv::sim {
namespace {

constexpr const char* kToldToFail = "the simulated device was told to fail";
constexpr int32_t kMultiprocessors = 3;  // few and odd: persistent grids go round

const char* order_name(Order order) {
  switch (order) {
    case Order::kForward:
      return "forward";
    case Order::kBackward:
      return "backward";
    case Order::kShuffled:
      return "shuffled";
  }
  return "";
}

}  // namespace

struct SimStream::RecordedWork final : gpu::Recorded {
  std::vector<Work> works;
};

SimStream::SimStream(const Options& options)
    : options_(options), limits_{.multiprocessors = kMultiprocessors, .shared_bytes = options.shared_bytes} {}

SimStream::~SimStream() { run_until(std::numeric_limits<int64_t>::max()); }

std::string SimStream::description() const {
  return std::string("simulated device, threads ") + order_name(options_.order);
}

// ---- errors

bool SimStream::failed() const {
  std::lock_guard lock(mutex_);
  return !error_.empty();
}

std::string SimStream::error() const {
  std::lock_guard lock(mutex_);
  return error_;
}

void SimStream::fail(const std::string& why) {
  std::lock_guard lock(mutex_);
  if (error_.empty()) error_ = why;
}

// ---- memory

bool SimStream::refused_while_recording(const char* what) {
  std::lock_guard lock(mutex_);
  if (recording_ == nullptr) return false;
  if (error_.empty()) error_ = std::string(what) + " while work is recorded";
  return true;
}

void* SimStream::allocate(size_t bytes) {
  if (refused_while_recording("memory is asked for")) return nullptr;
  std::byte* at = this_call_fails() ? nullptr : yard_.take(bytes);
  if (at == nullptr) return nullptr;
  queue(
      [this, at, bytes] {
        yard_.begin_block(at, bytes);
        return std::string();
      },
      /*always=*/true);
  return at;
}

void SimStream::release(void* memory) {
  refused_while_recording("memory is given back");
  auto* at = static_cast<std::byte*>(memory);
  queue([this, at] { return yard_.end_block(at); }, /*always=*/true);
  yard_.give_back(at);
}

void* SimStream::allocate_pinned(size_t bytes) {
  if (refused_while_recording("pinned memory is asked for")) return nullptr;
  void* memory = this_call_fails() ? nullptr : std::malloc(bytes);
  if (memory == nullptr) return nullptr;
  std::lock_guard lock(mutex_);
  pinned_[memory] = bytes;
  return memory;
}

void SimStream::release_pinned(void* memory) {
  {
    std::lock_guard lock(mutex_);
    pinned_.erase(memory);
  }
  std::free(memory);
}

gpu::StreamMemory SimStream::memory() const {
  gpu::StreamMemory memory{.used = yard_.taken(), .reserved = yard_.most_taken()};
  std::lock_guard lock(mutex_);
  for (const auto& [address, bytes] : pinned_) memory.pinned += bytes;
  return memory;
}

// ---- work

void SimStream::queue(Work work, bool always) {
  const bool fails = !always && this_call_fails();
  std::lock_guard lock(mutex_);
  if (recording_ != nullptr && !always) {
    recording_->works.push_back(std::move(work));
    if (fails && error_.empty()) error_ = kToldToFail;
    return;
  }
  queue_.push_back({std::move(work), fails, always});
}

void SimStream::launch(const Grid& grid, std::function<void()> thread) {
  queue([this, grid, thread = std::move(thread)] { return run_grid(options_, grid, thread); });
}

void SimStream::copy_rows(const gpu::Rows& to, const gpu::Rows& from, size_t row_bytes, size_t rows) {
  if (row_bytes == 0 || rows == 0) return;
  queue([to, from, row_bytes, rows] {
    for (size_t row = 0; row < rows; ++row) {
      std::memmove(static_cast<std::byte*>(to.data) + row * to.pitch,
                   static_cast<const std::byte*>(from.data) + row * from.pitch, row_bytes);
    }
    return std::string();
  });
}

void SimStream::upload(const gpu::Rows& device, const gpu::Rows& pinned, size_t row_bytes, size_t rows) {
  if (refused_while_recording("something is uploaded")) return;
  copy_rows(device, pinned, row_bytes, rows);
}

void SimStream::download(const gpu::Rows& pinned, const gpu::Rows& device, size_t row_bytes, size_t rows) {
  if (refused_while_recording("something is downloaded")) return;
  copy_rows(pinned, device, row_bytes, rows);
}

void SimStream::copy(const gpu::Rows& to, const gpu::Rows& from, size_t row_bytes, size_t rows) {
  copy_rows(to, from, row_bytes, rows);
}

void SimStream::zero(void* device, size_t bytes) {
  if (bytes == 0) return;
  queue([device, bytes] {
    std::memset(device, 0, bytes);
    return std::string();
  });
}

// ---- moments

void SimStream::wait() {
  if (refused_while_recording("the host waits")) return;
  ++waits_;
  run_until(std::numeric_limits<int64_t>::max());
}

int64_t SimStream::mark() {
  refused_while_recording("a moment is marked");
  std::lock_guard lock(mutex_);
  return done_ + static_cast<int64_t>(queue_.size());
}

void SimStream::wait_for(int64_t mark) {
  if (refused_while_recording("the host waits")) return;
  ++waits_;
  run_until(mark);
}

// A simulation has no time of its own: a piece of work is as good as another.
double SimStream::seconds(int64_t from, int64_t to) { return 1e-6 * static_cast<double>(to - from); }

// ---- recordings

void SimStream::begin_recording() {
  std::lock_guard lock(mutex_);
  PKV_CHECK(recording_ == nullptr, "a recording in a recording");
  recording_ = std::make_unique<RecordedWork>();
}

std::unique_ptr<gpu::Recorded> SimStream::end_recording() {
  std::lock_guard lock(mutex_);
  std::unique_ptr<RecordedWork> recorded = std::move(recording_);
  return error_.empty() ? std::move(recorded) : nullptr;
}

void SimStream::replay(const gpu::Recorded& recorded) {
  queue([&works = static_cast<const RecordedWork&>(recorded).works] {
    for (const Work& work : works) {
      if (std::string error = work(); !error.empty()) return error;
    }
    return std::string();
  });
}

void SimStream::run_until(int64_t end) {
  std::unique_lock lock(mutex_);
  if (queue_.empty() || done_ >= end) return;
  yard_.open();
  while (!queue_.empty() && done_ < end) {
    const Queued next = std::move(queue_.front());
    queue_.pop_front();
    ++done_;
    const bool skipped = !device_error_.empty() && !next.always;
    lock.unlock();
    std::string error;
    if (next.fails) {
      error = kToldToFail;
    } else if (!skipped) {
      error = next.work();
    }
    lock.lock();
    if (device_error_.empty()) device_error_ = std::move(error);
  }
  if (device_error_.empty()) device_error_ = yard_.check_gaps();
  yard_.close(queue_.empty());
  if (error_.empty()) error_ = device_error_;
}

}  // namespace pkv::sim
