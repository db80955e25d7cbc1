// The memory of a backend whose memory is a device's: what goes there and comes back passes through pinned memory, in
// stream order.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>

#include "kernels/backend.h"
#include "kernels/cuda/pinned_staging.h"
#include "kernels/cuda/stream.h"

namespace pkv {

class DeviceBackend : public Backend {
 public:
  // `graphs`: replay() remembers.
  DeviceBackend(std::shared_ptr<gpu::Stream> stream, std::unique_ptr<PinnedStaging> staging, bool graphs)
      : stream_(std::move(stream)), staging_(std::move(staging)), graphs_(graphs) {}

  // INTERNAL with what the device said.
  absl::Status status() const override;
  std::optional<DeviceMemory> device_memory() const override;

  absl::StatusOr<Tensor> allocate(int64_t rows, int64_t cols, DType dtype) override;
  // Takes all of the memory at once: a device has none that comes when it is touched.
  absl::StatusOr<std::shared_ptr<std::byte>> allocate_lazy(size_t bytes) override;
  absl::StatusOr<Staged> allocate_staged(size_t bytes) override;
  void commit(const Staged& staged, size_t offset, size_t bytes) override;
  void upload(const TensorView& to, const void* from) override;
  void copy(const TensorView& to, const TensorView& from) override;
  using Backend::fetch;
  void fetch(std::span<const Fetch> reads) override;
  void sync() override { stream_->wait(); }
  // The first time as always, which tells how much scratch it takes; recorded the second time.
  void replay(std::unique_ptr<Recording>& recording, const std::function<void()>& record) override;
  int64_t mark() override { return stream_->mark(); }
  double elapsed(int64_t from, int64_t to) const override { return stream_->seconds(from, to); }

 protected:
  gpu::Stream& stream() const { return *stream_; }
  PinnedStaging& staging() const { return *staging_; }
  // Bytes that are given out, by what they were asked for.
  struct Taken {
    std::atomic<uint64_t> weights = 0, lazy = 0, tensors = 0, staged = 0;
  };
  using Purpose = std::atomic<uint64_t> Taken::*;

  // Uninitialised; whoever is last gives it back in stream order, the backend being there or not.
  absl::StatusOr<std::shared_ptr<std::byte>> take(size_t bytes, Purpose purpose);

  void upload_flat(std::byte* to, const std::byte* from, size_t bytes);
  bool graphs() const { return graphs_; }

 private:
  class StepRecording;
  absl::StatusOr<std::shared_ptr<std::byte>> take_zeros(size_t bytes, Purpose purpose);

  std::shared_ptr<gpu::Stream> stream_;
  std::unique_ptr<PinnedStaging> staging_;
  bool graphs_;
  std::shared_ptr<Taken> taken_ = std::make_shared<Taken>();
  // The scratch of recordings, one after another; those that are too large for it get a larger one.
  std::shared_ptr<std::byte> scratch_;
  size_t scratch_bytes_ = 0;
};

}  // namespace pkv
