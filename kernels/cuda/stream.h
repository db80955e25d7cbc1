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
#include <memory>
#include <string>

namespace pkv::gpu {

struct DeviceLimits {
  int32_t multiprocessors = 0;
  size_t shared_bytes = 0;  // that one block can have
};

// Bytes now.
struct StreamMemory {
  uint64_t used = 0;      // of the device, given out
  uint64_t reserved = 0;  // of the device, taken: given out, or kept for the next who ask
  uint64_t pinned = 0;    // of the host
};

// Rows of bytes, `pitch` bytes apart.
struct Rows {
  void* data = nullptr;
  size_t pitch = 0;
};

// Work that was remembered, to be done as often as is wanted.
class Recorded {
 public:
  Recorded() = default;
  virtual ~Recorded() = default;
  Recorded(const Recorded&) = delete;
  Recorded& operator=(const Recorded&) = delete;
};

// Where the scratch of operations comes from: each time from allocate(), or, while work is remembered together with its
// addresses, from memory that was there before and stays.
struct ScratchRoom {
  std::byte* memory = nullptr;  // nullptr: allocate()
  size_t bytes = 0;
  size_t used = 0;  // at this moment
  size_t most = 0;  // at any moment since somebody set it to 0
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
  virtual StreamMemory memory() const = 0;

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

  // ---- work that is done again and again
  // From here on kernels, copies and zeros on the device are remembered and not done. Meanwhile allocate(), release(),
  // pinned memory, upload(), download() and every wait and moment are errors.
  virtual void begin_recording() = 0;
  // What was asked for since; nullptr where the stream has failed.
  virtual std::unique_ptr<Recorded> end_recording() = 0;
  // `recorded` stays until that is done.
  virtual void replay(const Recorded& recorded) = 0;
  ScratchRoom& scratch_room() { return scratch_room_; }

  // The CUDA stream, on the thread's current device, for launch.h.
  virtual void* native() { return nullptr; }

 private:
  ScratchRoom scratch_room_;  // of the thread that asks for work
};

// Device memory that one operation uses between its kernels: given back in order, so its launches may still be to come.
// The last one taken is the first one given back.
class Scratch {
 public:
  Scratch(Stream& stream, size_t bytes) : stream_(stream), bytes_((bytes + 255) / 256 * 256) {
    ScratchRoom& room = stream.scratch_room();
    const size_t at = room.used;
    room.used += bytes_;
    if (room.used > room.most) room.most = room.used;
    if (stream.failed()) return;
    if (room.memory == nullptr) {
      memory_ = stream.allocate(bytes);
    } else if (room.used <= room.bytes) {
      memory_ = room.memory + at;
    }
    if (memory_ == nullptr && !stream.failed()) {
      stream.fail("no device memory for " + std::to_string(bytes) + " bytes of scratch");
    }
  }
  ~Scratch() {
    ScratchRoom& room = stream_.scratch_room();
    room.used -= bytes_;
    if (memory_ != nullptr && room.memory == nullptr) stream_.release(memory_);
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
  size_t bytes_;
  void* memory_ = nullptr;
};

}  // namespace pkv::gpu
