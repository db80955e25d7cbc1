// One device's work in order, and its memory: the seam between the backend and what runs kernels. Two implementations:
// the CUDA runtime (cuda_stream.h), and for tests the simulator (sim/sim_stream.h). No CUDA headers and no absl: host
// code and .cu files include it alike.
//
// Nothing here returns an error. The first one stays: from then on nothing is done any more, and whoever waits for a
// result asks failed(). Work may fail long after the call that asked for it: what wait() has returned for is true only
// where failed() is false after it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace pkv::gpu {

struct DeviceLimits {
  int32_t multiprocessors = 0;
  size_t shared_bytes = 0;  // that one block can have
};

// Rows of bytes, `pitch` bytes apart.
struct Rows {
  void* data = nullptr;
  size_t pitch = 0;
};

class Stream {
 public:
  Stream() = default;
  virtual ~Stream() = default;
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  virtual std::string description() const = 0;  // for people: the device
  virtual const DeviceLimits& limits() const = 0;

  // ---- the first error
  virtual bool failed() const = 0;
  virtual std::string error() const = 0;
  virtual void fail(const std::string& why) = 0;  // any thread

  // ---- memory: any thread
  // Device memory, 256-aligned, for whatever comes later in order; nullptr where there is none, which is no error.
  virtual void* allocate(size_t bytes) = 0;
  // Once everything that was asked for before is done, in whichever order `memory` was given out.
  virtual void release(void* memory) = 0;
  // Host memory that the device reads and writes while the host goes on; release once nothing uses it.
  virtual void* allocate_pinned(size_t bytes) = 0;
  virtual void release_pinned(void* memory) = 0;

  // ---- work in order. Host memory in it is pinned, and neither changed nor read before the work is done.
  virtual void upload(const Rows& device, const Rows& pinned, size_t row_bytes, size_t rows) = 0;
  virtual void download(const Rows& pinned, const Rows& device, size_t row_bytes, size_t rows) = 0;
  virtual void copy(const Rows& to, const Rows& from, size_t row_bytes, size_t rows) = 0;  // on the device
  virtual void zero(void* device, size_t bytes) = 0;

  // ---- moments
  virtual void wait() = 0;                  // for everything
  virtual int64_t mark() = 0;               // a moment between what was asked for before and after it
  virtual void wait_for(int64_t mark) = 0;  // for everything before it
  virtual double seconds(int64_t from,
                         int64_t to) = 0;  // between marks that were waited for; 0 where either is too old

  // The CUDA stream, on the thread's current device, for launch.h.
  virtual void* native() { return nullptr; }
};

// Device memory that one operation uses between its kernels: given back in order, so its launches may still be to come.
class Scratch {
 public:
  Scratch(Stream& stream, size_t bytes) : stream_(stream), memory_(stream.failed() ? nullptr : stream.allocate(bytes)) {
    if (memory_ == nullptr && !stream.failed()) {
      stream.fail("no device memory for " + std::to_string(bytes) + " bytes of scratch");
    }
  }
  ~Scratch() {
    if (memory_ != nullptr) stream_.release(memory_);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  // nullptr once the stream has failed, when no kernel runs any more.
  template <typename T>
  T* as() const {
    return static_cast<T*>(memory_);
  }

 private:
  Stream& stream_;
  void* memory_ = nullptr;
};

}  // namespace pkv::gpu
