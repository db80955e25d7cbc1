// The host's side of transfers: pinned memory through which bytes go to the device and come back.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "kernels/cuda/stream.h"

namespace pkv {

class PinnedStaging {
 public:
  // `up` and `down`: bytes for each direction. RESOURCE_EXHAUSTED where the host has no such memory to pin.
  static absl::StatusOr<std::unique_ptr<PinnedStaging>> create(std::shared_ptr<gpu::Stream> stream, size_t up,
                                                               size_t down);
  ~PinnedStaging();
  PinnedStaging(const PinnedStaging&) = delete;
  PinnedStaging& operator=(const PinnedStaging&) = delete;

  // Of one piece at most.
  size_t most_up() const { return half_bytes_; }
  // Room for `bytes` that the device has read, to be written at once and named in what is asked of the stream next.
  // Waits for the device where it is behind.
  std::byte* take(size_t bytes);

  // Room for what comes back, whose users wait for the stream before they are through.
  std::byte* down() const { return down_; }
  size_t down_bytes() const { return down_bytes_; }

 private:
  // Half of the room is written while the device reads from the other.
  struct Half {
    std::byte* memory = nullptr;
    int64_t read_at = 0;  // the moment from which on the device has read it
  };

  explicit PinnedStaging(std::shared_ptr<gpu::Stream> stream) : stream_(std::move(stream)) {}

  std::shared_ptr<gpu::Stream> stream_;
  Half halves_[2];
  size_t half_bytes_ = 0, used_ = 0;  // of the half that is being written
  int32_t writing_ = 0;
  std::byte* down_ = nullptr;
  size_t down_bytes_ = 0;
};

}  // namespace pkv
