#include "kernels/cuda/pinned_staging.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/check.h"

namespace pkv {
namespace {

constexpr size_t kUnit = 64;  // pieces begin on a cache line

}  // namespace

absl::StatusOr<std::unique_ptr<PinnedStaging>> PinnedStaging::create(std::shared_ptr<gpu::Stream> stream, size_t up,
                                                                     size_t down) {
  std::unique_ptr<PinnedStaging> staging(new PinnedStaging(std::move(stream)));
  staging->half_bytes_ = up / 2 / kUnit * kUnit;
  staging->down_bytes_ = down;
  bool complete = true;
  for (Half& half : staging->halves_) {
    half.memory = static_cast<std::byte*>(staging->stream_->allocate_pinned(staging->half_bytes_));
    complete = complete && half.memory != nullptr;
  }
  staging->down_ = static_cast<std::byte*>(staging->stream_->allocate_pinned(down));
  if (!complete || staging->down_ == nullptr) {
    return absl::ResourceExhaustedError(absl::StrCat("the host cannot pin ", up + down, " bytes of memory"));
  }
  return staging;
}

PinnedStaging::~PinnedStaging() {
  stream_->wait();
  for (const Half& half : halves_) {
    if (half.memory != nullptr) stream_->release_pinned(half.memory);
  }
  if (down_ != nullptr) stream_->release_pinned(down_);
}

std::byte* PinnedStaging::take(size_t bytes) {
  PKV_CHECK(bytes <= half_bytes_, "a piece is larger than the room for it");
  const size_t size = (bytes + kUnit - 1) / kUnit * kUnit;
  if (size > half_bytes_ - used_) {
    halves_[writing_].read_at = stream_->mark();
    writing_ = 1 - writing_;
    stream_->wait_for(halves_[writing_].read_at);
    used_ = 0;
  }
  return halves_[writing_].memory + std::exchange(used_, used_ + size);
}

}  // namespace pkv
