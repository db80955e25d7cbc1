// One large mapping from which memory is handed out, unreadable between operations.
#include "tests/support/fenced_backend.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>
#include <utility>

#include "kernels/check.h"
#include "kernels/reference/reference_backend.h"
#include "kernels/status_macros.h"

namespace pkv::test {
namespace {

constexpr size_t kYardBytes = size_t{1} << 36;  // of addresses; memory follows where it is touched
constexpr size_t kUnit = 4096;                  // a system page: nobody shares one

}  // namespace

class FencedBackend::Yard {
 public:
  Yard() {
    void* memory = mmap(nullptr, kYardBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    PKV_CHECK(memory != MAP_FAILED, "no address space for the fenced memory");
    base_ = static_cast<std::byte*>(memory);
  }
  ~Yard() { munmap(base_, kYardBytes); }
  Yard(const Yard&) = delete;
  Yard& operator=(const Yard&) = delete;

  // Zeros; at least a page. nullptr where there is no more.
  std::byte* take(size_t bytes) {
    std::lock_guard lock(mutex_);
    const size_t size = std::max(kUnit, (bytes + kUnit - 1) / kUnit * kUnit);
    const auto gap = gaps_.lower_bound(size);
    if (gap != gaps_.end() && gap->first == size) {
      std::byte* at = gap->second;
      gaps_.erase(gap);
      return at;
    }
    if (size > kYardBytes - used_) return nullptr;
    return base_ + std::exchange(used_, used_ + size);
  }
  void give_back(std::byte* at, size_t bytes) {
    std::lock_guard lock(mutex_);
    const size_t size = std::max(kUnit, (bytes + kUnit - 1) / kUnit * kUnit);
    madvise(at, size, MADV_DONTNEED);
    gaps_.emplace(size, at);
  }
  bool holds(const void* memory, size_t bytes) const {
    const auto* at = static_cast<const std::byte*>(memory);
    return at >= base_ && at + bytes <= base_ + used_;
  }
  void open() { protect(PROT_READ | PROT_WRITE); }
  void close() { protect(PROT_NONE); }

 private:
  void protect(int protection) {
    std::lock_guard lock(mutex_);
    PKV_CHECK(used_ == 0 || mprotect(base_, used_, protection) == 0, "the fence does not move");
  }

  std::mutex mutex_;
  std::byte* base_ = nullptr;
  size_t used_ = 0;
  std::multimap<size_t, std::byte*> gaps_;  // by size
};

FencedBackend::FencedBackend() : ForwardingBackend(make_reference_backend()), yard_(std::make_shared<Yard>()) {}

FencedBackend::~FencedBackend() = default;

void FencedBackend::run(std::string_view, absl::FunctionRef<void()> forward) {
  yard_->open();
  forward();
  yard_->close();
}

// ---- memory

absl::StatusOr<std::shared_ptr<std::byte>> FencedBackend::allocate_lazy(size_t bytes) {
  PKV_RETURN_IF_ERROR(reserve("allocate_lazy", bytes));
  std::byte* memory = yard_->take(bytes);
  if (memory == nullptr) return absl::ResourceExhaustedError("no more fenced memory");
  return std::shared_ptr<std::byte>(memory, [yard = yard_, bytes](std::byte* at) { yard->give_back(at, bytes); });
}

absl::StatusOr<Tensor> FencedBackend::allocate(int64_t rows, int64_t cols, DType dtype) {
  PKV_CHECK(rows >= 0 && cols >= 0, "extents of a tensor");
  PKV_ASSIGN_OR_RETURN(std::shared_ptr<std::byte> memory,
                       allocate_lazy(static_cast<size_t>(rows * cols) * dtype_bytes(dtype)));
  void* data = memory.get();
  return Tensor(std::move(memory), {data, dtype, rows, cols, cols});
}

absl::StatusOr<Staged> FencedBackend::allocate_staged(size_t bytes) {
  PKV_ASSIGN_OR_RETURN(std::shared_ptr<std::byte> device, allocate_lazy(bytes));
  PKV_ASSIGN_OR_RETURN(Staged host, inner().allocate_staged(bytes));
  auto both = std::make_shared<std::pair<std::shared_ptr<std::byte>, Staged>>(std::move(device), std::move(host));
  return Staged(both, both->second.host(), both->first.get(), bytes);
}

void FencedBackend::commit(const Staged& staged, size_t offset, size_t bytes) {
  PKV_CHECK(offset <= staged.bytes() && bytes <= staged.bytes() - offset, "more is committed than there is");
  run("commit", [&] { std::memcpy(staged.device() + offset, staged.host() + offset, bytes); });
}

// ---- operations

void FencedBackend::require(const void* memory, size_t bytes) const {
  PKV_CHECK(bytes == 0 || yard_->holds(memory, bytes), "an operation is given memory that is not the backend's");
}

void FencedBackend::require(const KvView& kv) const {
  require(kv.pool, 1);
  require(kv.positions, 1);
  require(kv.page_ids, 1);
  require(kv.lanes, static_cast<size_t>(kv.lane_count) * sizeof(Lane));
}

void FencedBackend::require(const RowSpans& spans) const {
  require(spans.data, static_cast<size_t>(spans.count) * sizeof(RowSpan));
}

void FencedBackend::require(const RopeSpec& spec) const {
  require(spec.inv_freq, static_cast<size_t>(spec.pairs) * sizeof(float));
}

void FencedBackend::require(const EvictingStep& step) const {
  require(step.rows, static_cast<size_t>(step.count) * sizeof(EvictingRow));
  require(step.lanes, static_cast<size_t>(step.layers) * static_cast<size_t>(step.lanes_per_layer) * sizeof(Lane));
}

void FencedBackend::require(const ScoredLanes& lanes) const {
  require(lanes.lanes, static_cast<size_t>(lanes.count) * sizeof(Lane));
  require(lanes.scores, 1);
  require(lanes.positions, 1);
}

void FencedBackend::embed(const Weight& table, const int32_t* ids, const TensorView& out) {
  require(ids, static_cast<size_t>(out.rows) * sizeof(int32_t));
  ForwardingBackend::embed(table, ids, out);
}

void FencedBackend::rope(const TensorView& x, const int32_t* positions, const RopeSpec& spec) {
  require(positions, static_cast<size_t>(x.rows) * sizeof(int32_t));
  require(spec);
  ForwardingBackend::rope(x, positions, spec);
}

void FencedBackend::set_page_ids(int32_t* page_ids, const PageEdit* edits, int32_t count) {
  require(page_ids, 1);
  require(edits, static_cast<size_t>(count) * sizeof(PageEdit));
  ForwardingBackend::set_page_ids(page_ids, edits, count);
}

void FencedBackend::write_kv(const TensorView& k, const TensorView& v, const int32_t* positions, const KvView& kv,
                             const RowSpans& spans, int32_t kv_heads) {
  require(positions, static_cast<size_t>(k.rows) * sizeof(int32_t));
  require(kv);
  require(spans);
  ForwardingBackend::write_kv(k, v, positions, kv, spans, kv_heads);
}

void FencedBackend::attend(const AttendArgs& args) {
  require(args.kv);
  require(args.spans);
  ForwardingBackend::attend(args);
}

void FencedBackend::row_lse(const ObserveArgs& args, const TensorView& lse) {
  require(args.kv);
  ForwardingBackend::row_lse(args, lse);
}

void FencedBackend::column_mass(const ObserveArgs& args, const TensorView& lse, const TensorView& sums,
                                const TensorView& squares) {
  require(args.kv);
  ForwardingBackend::column_mass(args, lse, sums, squares);
}

void FencedBackend::diagonal_mass(const ObserveArgs& args, const TensorView& lse, const TensorView& sums) {
  require(args.kv);
  ForwardingBackend::diagonal_mass(args, lse, sums);
}

void FencedBackend::gather(const KvView& kv, int32_t from, const TensorView& kept, const TensorView& counts,
                           int32_t to) {
  require(kv);
  ForwardingBackend::gather(kv, from, kept, counts, to);
}

void FencedBackend::value_norms(const KvView& kv, int32_t first_lane, int32_t kv_heads, const TensorView& factors,
                                const TensorView& norms) {
  require(kv);
  ForwardingBackend::value_norms(kv, first_lane, kv_heads, factors, norms);
}

void FencedBackend::key_norms(const KvView& kv, int32_t first_lane, const TensorView& norms) {
  require(kv);
  ForwardingBackend::key_norms(kv, first_lane, norms);
}

void FencedBackend::key_similarity(const KvView& kv, int32_t first_lane, const TensorView& unit_sums,
                                   const TensorView& cosines) {
  require(kv);
  ForwardingBackend::key_similarity(kv, first_lane, unit_sums, cosines);
}

void FencedBackend::turn_keys(const KvView& kv, int32_t first_lane, int32_t lanes, int32_t first_slot, int32_t delta,
                              const RopeSpec& spec) {
  require(kv);
  require(spec);
  ForwardingBackend::turn_keys(kv, first_lane, lanes, first_slot, delta, spec);
}

void FencedBackend::write_turned(const TurnedRows& rows, const RopeSpec& spec) {
  require(rows.kv);
  require(spec);
  ForwardingBackend::write_turned(rows, spec);
}

void FencedBackend::choose_slots(const EvictingStep& step) {
  require(step);
  ForwardingBackend::choose_slots(step);
}

void FencedBackend::score_new_entries(const EvictingStep& step, const TensorView& k) {
  require(step);
  ForwardingBackend::score_new_entries(step, k);
}

void FencedBackend::keep_queries(const EvictingStep& step, const TensorView& q) {
  require(step);
  ForwardingBackend::keep_queries(step, q);
}

void FencedBackend::add_attention(const EvictingStep& step, const TokenQueries& queries) {
  require(step);
  require(queries.kv);
  ForwardingBackend::add_attention(step, queries);
}

void FencedBackend::set_scores(const ScoredLanes& lanes, const TensorView& scores, int32_t newest) {
  require(lanes);
  ForwardingBackend::set_scores(lanes, scores, newest);
}

void FencedBackend::sample_rows(const SampleArgs& args) {
  require(args.rows, static_cast<size_t>(args.logits.rows) * sizeof(SampleRow));
  ForwardingBackend::sample_rows(args);
}

void FencedBackend::token_logprobs(const LogprobArgs& args) {
  require(args.rows, static_cast<size_t>(args.logits.rows) * sizeof(LogprobRow));
  ForwardingBackend::token_logprobs(args);
}

void FencedBackend::order_entries(const ScoredLanes& lanes, const TensorView& order, const TensorView& counts) {
  require(lanes);
  ForwardingBackend::order_entries(lanes, order, counts);
}

}  // namespace pkv::test
