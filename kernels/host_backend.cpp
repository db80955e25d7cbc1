// Host allocations, copies, and attention that is added up.
#include "kernels/host_backend.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <limits>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/status_macros.h"

namespace pkv {
namespace {

constexpr size_t kPage = 4096;

std::byte* row_at(const TensorView& view, int64_t row) {
  return static_cast<std::byte*>(view.data) + row * view.row_stride * static_cast<int64_t>(dtype_bytes(view.dtype));
}

size_t row_bytes(const TensorView& view) { return static_cast<size_t>(view.cols) * dtype_bytes(view.dtype); }

}  // namespace

absl::StatusOr<Tensor> HostBackend::allocate(int64_t rows, int64_t cols, DType dtype) {
  PKV_CHECK(rows >= 0 && cols >= 0, "extents of a tensor");
  const auto out_of_memory = [&] {
    return absl::ResourceExhaustedError(absl::StrCat("no memory for a tensor of ", rows, " x ", cols));
  };
  if (cols > 0 && rows > std::numeric_limits<int64_t>::max() / 8 / cols) return out_of_memory();
  const size_t bytes = static_cast<size_t>(rows) * static_cast<size_t>(cols) * dtype_bytes(dtype);
  const size_t alignment = bytes >= kPage ? kPage : 64;
  void* memory = std::aligned_alloc(alignment, std::max(alignment, (bytes + alignment - 1) / alignment * alignment));
  if (memory == nullptr) return out_of_memory();
  return Tensor(std::shared_ptr<void>(memory, [](void* address) { std::free(address); }),
                {memory, dtype, rows, cols, cols});
}

absl::StatusOr<std::shared_ptr<std::byte>> HostBackend::allocate_lazy(size_t bytes) {
  const size_t size = std::max(bytes, kPage);
  void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    return absl::ResourceExhaustedError(absl::StrCat("no address space for ", bytes, " bytes"));
  }
  return std::shared_ptr<std::byte>(static_cast<std::byte*>(memory),
                                    [size](std::byte* address) { munmap(address, size); });
}

absl::StatusOr<Staged> HostBackend::allocate_staged(size_t bytes) {
  PKV_ASSIGN_OR_RETURN(std::shared_ptr<std::byte> memory, HostBackend::allocate_lazy(bytes));
  std::byte* address = memory.get();
  return Staged(std::move(memory), address, address, bytes);
}

void HostBackend::commit(const Staged& staged, size_t offset, size_t bytes) {
  PKV_CHECK(offset <= staged.bytes() && bytes <= staged.bytes() - offset, "more is committed than there is");
}

void HostBackend::upload(const TensorView& to, const void* from) {
  const size_t bytes = row_bytes(to);
  if (bytes == 0) return;
  const auto* source = static_cast<const std::byte*>(from);
  for (int64_t row = 0; row < to.rows; ++row) {
    std::memcpy(row_at(to, row), source + static_cast<size_t>(row) * bytes, bytes);
  }
}

void HostBackend::fill(const TensorView& to, float value) {
  PKV_CHECK(to.dtype == DType::kF32, "only numbers are filled");
  for (int64_t row = 0; row < to.rows; ++row) std::fill_n(to.f32_row(row), to.cols, value);
}

void HostBackend::copy(const TensorView& to, const TensorView& from) {
  PKV_CHECK(to.rows == from.rows && to.cols == from.cols && to.dtype == from.dtype, "shapes of a copy");
  const size_t bytes = row_bytes(to);
  if (bytes == 0) return;
  for (int64_t row = 0; row < to.rows; ++row) std::memmove(row_at(to, row), row_at(from, row), bytes);
}

void HostBackend::set_page_ids(int32_t* page_ids, const PageEdit* edits, int32_t count) {
  for (int32_t i = 0; i < count; ++i) page_ids[edits[i].at] = edits[i].page;
}

void HostBackend::keep_queries(const EvictingStep& step, const TensorView& q) {
  PKV_CHECK(step.layers == 1, "queries are of one layer");
  for (const EvictingRow* row = step.rows; row != step.rows + step.count; ++row) {
    if (row->queries == nullptr) continue;
    const int64_t place = int64_t{step.first_layer} * row->window + row->position % row->window;
    std::copy_n(q.f32_row(row->row), q.cols, row->queries + place * q.cols);
  }
}

void HostBackend::add_attention(const EvictingStep& step, const TokenQueries& queries) {
  PKV_CHECK(step.layers == 1, "queries are of one layer");
  lse_.resize(static_cast<size_t>(queries.q_heads));
  const TensorView lse{lse_.data(), DType::kF32, 1, queries.q_heads, queries.q_heads};
  for (const EvictingRow* row = step.rows; row != step.rows + step.count; ++row) {
    if (!grows_by_attention(row->new_score)) continue;
    const int32_t first_lane = row->row * step.kv_heads;
    const std::span lanes(queries.kv.lanes + first_lane, static_cast<size_t>(step.kv_heads));
    int32_t longest = 0;
    for (const Lane& lane : lanes) longest = std::max(longest, lane.length);
    PKV_CHECK(longest <= queries.sums.cols && longest <= queries.mass.cols, "room for the longest lane's entries");
    const TensorView sums = queries.sums.slice_rows(0, queries.q_heads).slice_cols(0, longest);
    const TensorView mass = queries.mass.slice_rows(0, step.kv_heads).slice_cols(0, longest);
    fill(sums, 0);
    observe_token({.q = queries.q.slice_rows(row->row, 1),
                   .kv = queries.kv,
                   .first_lane = first_lane,
                   .q_heads = queries.q_heads,
                   .kv_heads = step.kv_heads,
                   .scale = queries.scale},
                  lse, sums);
    reduce_groups(sums, GroupReduce::kMean, mass);
    for (int32_t head = 0; head < step.kv_heads; ++head) {
      const Lane& lane = lanes[static_cast<size_t>(head)];
      float* scores = row->scores + lane.first_score;
      const float* more = mass.f32_row(head);
      for (int32_t slot = 0; slot < lane.length; ++slot) scores[slot] += more[slot];
    }
  }
}

void HostBackend::fetch(std::span<const Fetch> reads) {
  for (const Fetch& read : reads) {
    const size_t bytes = row_bytes(read.from);
    if (bytes == 0) continue;
    auto* to = static_cast<std::byte*>(read.to);
    for (int64_t row = 0; row < read.from.rows; ++row) {
      std::memcpy(to + static_cast<size_t>(row) * bytes, row_at(read.from, row), bytes);
    }
  }
}

}  // namespace pkv
