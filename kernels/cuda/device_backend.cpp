#include "kernels/cuda/device_backend.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/status_macros.h"

namespace pkv {
namespace {

size_t row_bytes(const TensorView& view) { return static_cast<size_t>(view.cols) * dtype_bytes(view.dtype); }
size_t pitch(const TensorView& view) { return static_cast<size_t>(view.row_stride) * dtype_bytes(view.dtype); }
bool is_dense(const TensorView& view) { return view.row_stride == view.cols || view.rows <= 1; }

// Rows that were asked for from `first` on, as many as fit into the room that is left; they lie there at `at`.
struct Piece {
  const Fetch* read = nullptr;
  int64_t first = 0, rows = 0;
  size_t at = 0;
};

}  // namespace

absl::Status DeviceBackend::status() const {
  if (!stream_->failed()) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("the GPU has failed: ", stream_->error()));
}

// ---- allocation

std::optional<DeviceMemory> DeviceBackend::device_memory() const {
  const gpu::StreamMemory memory = stream_->memory();
  return DeviceMemory{.weights = taken_->weights,
                      .lazy = taken_->lazy,
                      .tensors = taken_->tensors,
                      .staged = taken_->staged,
                      .used = memory.used,
                      .reserved = memory.reserved,
                      .pinned = memory.pinned};
}

absl::StatusOr<std::shared_ptr<std::byte>> DeviceBackend::take(size_t bytes, Purpose purpose) {
  PKV_RETURN_IF_ERROR(status());
  void* memory = stream_->allocate(std::max<size_t>(bytes, 1));
  if (memory == nullptr) {
    PKV_RETURN_IF_ERROR(status());
    return absl::ResourceExhaustedError(absl::StrCat("no device memory for ", bytes, " bytes"));
  }
  (*taken_).*purpose += bytes;
  return std::shared_ptr<std::byte>(static_cast<std::byte*>(memory),
                                    [stream = stream_, taken = taken_, bytes, purpose](std::byte* address) {
                                      (*taken).*purpose -= bytes;
                                      stream->release(address);
                                    });
}

absl::StatusOr<std::shared_ptr<std::byte>> DeviceBackend::take_zeros(size_t bytes, Purpose purpose) {
  PKV_ASSIGN_OR_RETURN(std::shared_ptr<std::byte> memory, take(bytes, purpose));
  stream_->zero(memory.get(), bytes);
  return memory;
}

absl::StatusOr<Tensor> DeviceBackend::allocate(int64_t rows, int64_t cols, DType dtype) {
  PKV_CHECK(rows >= 0 && cols >= 0, "extents of a tensor");
  if (cols > 0 && rows > std::numeric_limits<int64_t>::max() / 8 / cols) {
    return absl::ResourceExhaustedError(absl::StrCat("no device memory for a tensor of ", rows, " x ", cols));
  }
  PKV_ASSIGN_OR_RETURN(std::shared_ptr<std::byte> memory,
                       take(static_cast<size_t>(rows * cols) * dtype_bytes(dtype), &Taken::tensors));
  void* data = memory.get();
  return Tensor(std::move(memory), {data, dtype, rows, cols, cols});
}

absl::StatusOr<std::shared_ptr<std::byte>> DeviceBackend::allocate_lazy(size_t bytes) {
  return take_zeros(bytes, &Taken::lazy);
}

absl::StatusOr<Staged> DeviceBackend::allocate_staged(size_t bytes) {
  PKV_ASSIGN_OR_RETURN(std::shared_ptr<std::byte> device, take_zeros(bytes, &Taken::staged));
  constexpr size_t kAlignment = 64;
  const size_t size = std::max(kAlignment, (bytes + kAlignment - 1) / kAlignment * kAlignment);
  auto* host = static_cast<std::byte*>(std::aligned_alloc(kAlignment, size));
  if (host == nullptr) return absl::ResourceExhaustedError(absl::StrCat("no host memory for ", bytes, " bytes"));
  std::memset(host, 0, size);
  std::byte* address = device.get();
  std::shared_ptr<void> both(host, [device = std::move(device)](void* memory) { std::free(memory); });
  return Staged(std::move(both), host, address, bytes);
}

// ---- transfers

void DeviceBackend::upload_flat(std::byte* to, const std::byte* from, size_t bytes) {
  for (size_t done = 0; done < bytes && !stream_->failed();) {
    const size_t piece = std::min(bytes - done, staging_->most_up());
    std::byte* pinned = staging_->take(piece);
    std::memcpy(pinned, from + done, piece);
    stream_->upload({to + done, piece}, {pinned, piece}, piece, 1);
    done += piece;
  }
}

void DeviceBackend::commit(const Staged& staged, size_t offset, size_t bytes) {
  PKV_CHECK(offset <= staged.bytes() && bytes <= staged.bytes() - offset, "more is committed than there is");
  upload_flat(staged.device() + offset, staged.host() + offset, bytes);
}

void DeviceBackend::upload(const TensorView& to, const void* from) {
  const size_t bytes = row_bytes(to);
  const auto* source = static_cast<const std::byte*>(from);
  if (is_dense(to)) return upload_flat(static_cast<std::byte*>(to.data), source, static_cast<size_t>(to.rows) * bytes);
  PKV_CHECK(bytes <= staging_->most_up(), "a row is larger than the room for it");
  const auto fit = static_cast<int64_t>(staging_->most_up() / std::max<size_t>(bytes, 1));
  for (int64_t row = 0; row < to.rows && !stream_->failed(); row += fit) {
    const TensorView part = to.slice_rows(row, std::min(fit, to.rows - row));
    const size_t piece = static_cast<size_t>(part.rows) * bytes;
    std::byte* pinned = staging_->take(piece);
    std::memcpy(pinned, source + static_cast<size_t>(row) * bytes, piece);
    stream_->upload({part.data, pitch(part)}, {pinned, bytes}, bytes, static_cast<size_t>(part.rows));
  }
}

void DeviceBackend::copy(const TensorView& to, const TensorView& from) {
  PKV_CHECK(to.rows == from.rows && to.cols == from.cols && to.dtype == from.dtype, "shapes of a copy");
  if (to.rows == 0 || to.cols == 0 || stream_->failed()) return;
  stream_->copy({to.data, pitch(to)}, {from.data, pitch(from)}, row_bytes(to), static_cast<size_t>(to.rows));
}

void DeviceBackend::fetch(std::span<const Fetch> reads) {
  std::vector<Piece> pieces;
  size_t used = 0;
  // Waits once, and hands out what is there by then.
  const auto hand_out = [&] {
    stream_->wait();
    for (const Piece& piece : pieces) {
      const size_t bytes = row_bytes(piece.read->from);
      std::byte* to = static_cast<std::byte*>(piece.read->to) + static_cast<size_t>(piece.first) * bytes;
      const size_t size = static_cast<size_t>(piece.rows) * bytes;
      if (stream_->failed()) {
        std::memset(to, 0, size);
      } else {
        std::memcpy(to, staging_->down() + piece.at, size);
      }
    }
    pieces.clear();
    used = 0;
  };
  for (const Fetch& read : reads) {
    const size_t bytes = row_bytes(read.from);
    if (bytes == 0) continue;
    PKV_CHECK(bytes <= staging_->down_bytes(), "a row is larger than the room for it");
    for (int64_t row = 0; row < read.from.rows;) {
      const auto fit = static_cast<int64_t>((staging_->down_bytes() - used) / bytes);
      if (fit == 0) {
        hand_out();
        continue;
      }
      const TensorView part = read.from.slice_rows(row, std::min(fit, read.from.rows - row));
      if (!stream_->failed()) {
        stream_->download({staging_->down() + used, bytes}, {part.data, pitch(part)}, bytes,
                          static_cast<size_t>(part.rows));
      }
      pieces.push_back({&read, row, part.rows, used});
      used += static_cast<size_t>(part.rows) * bytes;
      row += part.rows;
    }
  }
  hand_out();
}

// ---- recordings

class DeviceBackend::StepRecording final : public Recording {
 public:
  explicit StepRecording(std::shared_ptr<gpu::Stream> stream) : stream_(std::move(stream)) {}
  ~StepRecording() override {
    if (recorded != nullptr) stream_->wait();  // it may be under way
  }

  size_t scratch_bytes = 0;                 // that it takes
  std::shared_ptr<std::byte> scratch;       // where it lies
  std::unique_ptr<gpu::Recorded> recorded;  // nullptr: not yet

 private:
  std::shared_ptr<gpu::Stream> stream_;
};

void DeviceBackend::replay(std::unique_ptr<Recording>& recording, const std::function<void()>& record) {
  if (!graphs_) return record();
  gpu::ScratchRoom& room = stream_->scratch_room();
  if (recording == nullptr) {
    auto first = std::make_unique<StepRecording>(stream_);
    room.most = 0;
    record();
    first->scratch_bytes = room.most;
    recording = std::move(first);
    return;
  }
  auto& step = static_cast<StepRecording&>(*recording);
  if (step.recorded == nullptr) {
    if (step.scratch_bytes > scratch_bytes_) {
      absl::StatusOr<std::shared_ptr<std::byte>> memory = take(step.scratch_bytes, &Taken::tensors);
      if (!memory.ok()) return record();  // it goes without
      scratch_ = *std::move(memory);
      scratch_bytes_ = step.scratch_bytes;
    }
    step.scratch = scratch_;
    room.memory = scratch_.get();
    room.bytes = scratch_bytes_;
    stream_->begin_recording();
    const absl::Cleanup end = [&] {  // also where `record` throws
      step.recorded = stream_->end_recording();
      room = {};
    };
    record();
  }
  if (step.recorded != nullptr) stream_->replay(*step.recorded);
}

}  // namespace pkv
