// Builds shuffled caches and computes attention over them with plain loops in double precision.
#include "attention_fixture.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

namespace pkv {

std::vector<IsaPath> isa_paths() {
  std::vector<IsaPath> paths;
  for (const char* name : {"scalar", "avx2", "avx512", "avx512_bf16"}) {
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
  // What was never written is NaN in both formats.
  pool_.assign(static_cast<size_t>(pages + 1) * page_bytes, std::byte{0xff});
  positions_.assign(static_cast<size_t>(pages + 1) * position_stride_, -1);
  std::normal_distribution<float> normal;
  for (size_t lane = 0; lane < lanes.size(); ++lane) {
    for (int32_t slot = 0; slot < lanes[lane].length; ++slot) {
      for (int32_t dim = 0; dim < head_dim; ++dim) {
        set(static_cast<int32_t>(lane), slot, dim, false, normal(rng));
        set(static_cast<int32_t>(lane), slot, dim, true, normal(rng));
      }
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

std::byte* PagedLanes::address(int32_t lane, int32_t slot, int32_t dim, bool is_value) const {
  const KvView kv = view();
  const PageLayout layout = page_layout(kv, lanes[lane]);
  const int32_t place = slot % layout.slots();
  return kv.page(lanes[lane], slot / layout.slots()) +
         (is_value ? layout.value_at(place, dim) : layout.key_at(place, dim));
}

double PagedLanes::element(int32_t lane, int32_t slot, int32_t dim, bool is_value) const {
  const std::byte* from = address(lane, slot, dim, is_value);
  if (lanes[lane].dtype == KvDtype::kF16) {
    uint16_t half;
    std::memcpy(&half, from, sizeof(half));
    return half_to_float(half);
  }
  float x;
  std::memcpy(&x, from, sizeof(x));
  return x;
}

int32_t& PagedLanes::position(int32_t lane, int32_t slot) const {
  const KvView kv = view();
  const int32_t slots = page_layout(kv, lanes[lane]).slots();
  return kv.page_positions(lanes[lane], slot / slots)[slot % slots];
}

void PagedLanes::set(int32_t lane, int32_t slot, int32_t dim, bool is_value, float x) {
  std::byte* to = address(lane, slot, dim, is_value);
  if (lanes[lane].dtype == KvDtype::kF16) {
    const uint16_t half = float_to_half(x);
    std::memcpy(to, &half, sizeof(half));
  } else {
    std::memcpy(to, &x, sizeof(x));
  }
}

void PagedLanes::swap_slots(int32_t lane, int32_t a, int32_t b) {
  for (int32_t dim = 0; dim < head_dim_; ++dim) {
    for (const bool is_value : {false, true}) {
      const auto x = static_cast<float>(element(lane, a, dim, is_value));
      set(lane, a, dim, is_value, static_cast<float>(element(lane, b, dim, is_value)));
      set(lane, b, dim, is_value, x);
    }
  }
  std::swap(position(lane, a), position(lane, b));
}

DenseLane::DenseLane(const PagedLanes& cache, int32_t lane, int32_t head_dim) {
  for (int32_t slot = 0; slot < cache.lanes[lane].length; ++slot) {
    for (int32_t dim = 0; dim < head_dim; ++dim) {
      keys.push_back(cache.key(lane, slot, dim));
      values.push_back(cache.value(lane, slot, dim));
    }
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
