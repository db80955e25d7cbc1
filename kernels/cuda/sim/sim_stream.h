// A simulated device with its stream, as unkind as a real one may be: work is done when it is waited for and no
// earlier, the host cannot touch device memory, memory that is given back goes to the next who asks, and any call may
// fail, which the host hears of where it next waits.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "kernels/cuda/sim/block.h"
#include "kernels/cuda/sim/device_yard.h"
#include "kernels/cuda/stream.h"

namespace pkv::sim {

class SimStream final : public gpu::Stream {
 public:
  explicit SimStream(const Options& options);
  ~SimStream() override;

  // The n-th call from now on fails, the first being 1: an allocation gives nothing, work fails when it is its turn.
  void fail_at(int64_t n) { fail_at_ = calls_ + n; }
  int64_t calls() const { return calls_; }
  int64_t waits() const { return waits_; }

  void launch(const Grid& grid, std::function<void()> thread);

  std::string description() const override;
  const gpu::DeviceLimits& limits() const override { return limits_; }
  bool failed() const override;
  std::string error() const override;
  void fail(const std::string& why) override;
  void* allocate(size_t bytes) override;
  void release(void* memory) override;
  void* allocate_pinned(size_t bytes) override;
  void release_pinned(void* memory) override;
  gpu::StreamMemory memory() const override;
  void upload(const gpu::Rows& device, const gpu::Rows& pinned, size_t row_bytes, size_t rows) override;
  void download(const gpu::Rows& pinned, const gpu::Rows& device, size_t row_bytes, size_t rows) override;
  void copy(const gpu::Rows& to, const gpu::Rows& from, size_t row_bytes, size_t rows) override;
  void zero(void* device, size_t bytes) override;
  void wait() override;
  int64_t mark() override;
  void wait_for(int64_t mark) override;
  double seconds(int64_t from, int64_t to) override;
  void begin_recording() override;
  std::unique_ptr<gpu::Recorded> end_recording() override;
  void replay(const gpu::Recorded& recorded) override;

 private:
  // Empty, or why it failed.
  using Work = std::function<std::string()>;
  struct Queued {
    Work work;
    bool fails = false;
    bool always = false;  // goes on after a failure: what keeps the books of memory
  };

  struct RecordedWork;

  // Whether work is being remembered, of which `what` cannot be a part; then the stream has failed.
  bool refused_while_recording(const char* what);
  bool this_call_fails() { return ++calls_ == fail_at_; }
  void queue(Work work, bool always = false);
  void run_until(int64_t end);
  void copy_rows(const gpu::Rows& to, const gpu::Rows& from, size_t row_bytes, size_t rows);

  Options options_;
  gpu::DeviceLimits limits_;
  DeviceYard yard_;
  std::atomic<int64_t> calls_ = 0, waits_ = 0;
  std::atomic<int64_t> fail_at_ = std::numeric_limits<int64_t>::max();
  mutable std::mutex mutex_;        // of what follows
  std::map<void*, size_t> pinned_;  // bytes
  std::deque<Queued> queue_;
  std::unique_ptr<RecordedWork> recording_;  // what is being remembered
  int64_t done_ = 0;                         // pieces of work that were done: the first of queue_ has that number
  std::string error_;                        // the first; empty: none
  std::string device_error_;                 // of which the host may not have heard
};

}  // namespace pkv::sim
