// The memory of a backend whose memory is a device's: what goes there and comes back passes through pinned memory, in
// stream order.
#pragma once

#include <memory>
#include <span>

#include "kernels/backend.h"
#include "kernels/cuda/pinned_staging.h"
#include "kernels/cuda/stream.h"

namespace pkv {

class DeviceBackend : public Backend {
 public:
  DeviceBackend(std::shared_ptr<gpu::Stream> stream, std::unique_ptr<PinnedStaging> staging)
      : stream_(std::move(stream)), staging_(std::move(staging)) {}

  // INTERNAL with what the device said.
  absl::Status status() const override;

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
  int64_t mark() override { return stream_->mark(); }
  double elapsed(int64_t from, int64_t to) const override { return stream_->seconds(from, to); }

 protected:
  gpu::Stream& stream() const { return *stream_; }
  PinnedStaging& staging() const { return *staging_; }
  // Uninitialised; whoever is last gives it back in stream order, the backend being there or not.
  absl::StatusOr<std::shared_ptr<std::byte>> device_memory(size_t bytes);

  void upload_flat(std::byte* to, const std::byte* from, size_t bytes);

 private:
  std::shared_ptr<gpu::Stream> stream_;
  std::unique_ptr<PinnedStaging> staging_;
};

}  // namespace pkv
