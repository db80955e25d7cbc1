// Builds shuffled caches and computes attention over them with plain loops in double precision.
#include "attention_fixture.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace pkv {

std::vector<IsaPath> isa_paths() {
  std::vector<IsaPath> paths;
  for (const char* name : {"scalar", "avx2", "avx512", "avx512_bf16", "amx_bf16"}) {
    const auto features = cap_isa(detect_isa(), name);
    if (features.ok()) paths.push_back({name, *features});
  }
  return paths;
}

std::vector<float> random_floats(size_t count, uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  std::vector<float> out(count);
  for (float& x : out) x = normal(rng);
  return out;
}

TensorView matrix(std::vector<float>& data, int64_t rows) {
  const int64_t cols = static_cast<int64_t>(data.size()) / rows;
  return {data.data(), DType::kF32, rows, cols, cols};
}

PagedLanes::PagedLanes(int32_t head_dim, int32_t page_bytes, const std::vector<LaneShape>& shapes, int32_t spare,
                       uint32_t seed)
    : head_dim_(head_dim), page_bytes_(page_bytes), position_stride_(densest_slots(head_dim, page_bytes)) {
  int32_t pages = 0;
  for (const LaneShape& shape : shapes) {
    const PageLayout layout{shape.dtype, head_dim, page_bytes};
    lanes.push_back({.first_page = pages, .length = shape.length, .dtype = shape.dtype});
    pages += layout.pages_for(shape.length + spare);
  }
  std::mt19937 rng(seed);
  page_ids_.resize(pages);
  std::iota(page_ids_.begin(), page_ids_.end(), 1);  // page 0 belongs to nobody
  std::shuffle(page_ids_.begin(), page_ids_.end(), rng);
  // What was never written is NaN in every format.
  pool_.assign(static_cast<size_t>(pages + 1) * page_bytes, std::byte{0xff});
  positions_.assign(static_cast<size_t>(pages + 1) * position_stride_, -1);
  for (size_t lane = 0; lane < lanes.size(); ++lane) {
    for (int32_t slot = 0; slot < lanes[lane].length; ++slot) {
      const Place at = place(static_cast<int32_t>(lane), slot);
      write_bits(at.layout, at.page, at.place, random_bits(at.layout, rng));
      position(static_cast<int32_t>(lane), slot) = slot;
    }
  }
  show(1);
}

KvView PagedLanes::view() const {
  return {.pool = pool_.data(),
          .positions = positions_.data(),
          .page_ids = page_ids_.data(),
          .lanes = const_cast<Lane*>(lanes.data()),
          .lane_count = static_cast<int32_t>(lanes.size()),
          .page_bytes = page_bytes_,
          .position_stride = position_stride_,
          .head_dim = head_dim_};
}

void PagedLanes::show(int32_t rows) {
  for (Lane& lane : lanes) {
    lane.write_slot = lane.length - rows;
    lane.visible = lane.length - rows + 1;
  }
}

PagedLanes::Place PagedLanes::place(int32_t lane, int32_t slot) const {
  const KvView kv = view();
  const PageLayout layout = page_layout(kv, lanes[lane]);
  return {layout, kv.page(lanes[lane], slot / layout.slots()), slot % layout.slots()};
}

PlainEntry PagedLanes::entry(int32_t lane, int32_t slot) const {
  const Place at = place(lane, slot);
  return read_plain(at.layout, at.page, at.place);
}

int32_t& PagedLanes::position(int32_t lane, int32_t slot) const {
  const KvView kv = view();
  const int32_t slots = page_layout(kv, lanes[lane]).slots();
  return kv.page_positions(lanes[lane], slot / slots)[slot % slots];
}

void PagedLanes::swap_slots(int32_t lane, int32_t a, int32_t b) {
  const Place first = place(lane, a), second = place(lane, b);
  const EntryBits bits = read_bits(first.layout, first.page, first.place);
  write_bits(first.layout, first.page, first.place, read_bits(second.layout, second.page, second.place));
  write_bits(second.layout, second.page, second.place, bits);
  std::swap(position(lane, a), position(lane, b));
}

DenseLane::DenseLane(const PagedLanes& cache, int32_t lane) {
  for (int32_t slot = 0; slot < cache.lanes[lane].length; ++slot) {
    const PlainEntry entry = cache.entry(lane, slot);
    keys.insert(keys.end(), entry.key.begin(), entry.key.end());
    values.insert(values.end(), entry.value.begin(), entry.value.end());
  }
}

OracleRow oracle_attend(const DenseLane& lane, int32_t visible, std::span<const float> q) {
  const size_t d = q.size();
  const double scale = 1 / std::sqrt(static_cast<double>(d));
  OracleRow row{std::vector<double>(visible), std::vector<double>(d), 0};
  for (int32_t slot = 0; slot < visible; ++slot) {
    row.weights[slot] = scale * std::inner_product(q.begin(), q.end(), &lane.keys[slot * d], 0.0);
  }
  const double top = *std::max_element(row.weights.begin(), row.weights.end());
  double sum = 0;
  for (const double score : row.weights) sum += std::exp(score - top);
  row.lse = top + std::log(sum);
  for (int32_t slot = 0; slot < visible; ++slot) {
    row.weights[slot] = std::exp(row.weights[slot] - row.lse);
    for (size_t dim = 0; dim < d; ++dim) row.out[dim] += row.weights[slot] * lane.values[slot * d + dim];
  }
  return row;
}

}  // namespace pkv
