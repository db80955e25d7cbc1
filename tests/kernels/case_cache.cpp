// The paged cache of the operation cases (declared in case_data.h).
#include <algorithm>
#include <cstring>
#include <numeric>

#include "kernels/check.h"
#include "tests/kernels/case_data.h"

namespace pkv {
namespace {

constexpr int32_t kSparePages = 3;  // pages of nobody

void put(std::byte* at, ElementType type, float value) {
  if (type == ElementType::kF32) {
    std::memcpy(at, &value, 4);
  } else {
    const uint16_t half = float_to_half(value);
    std::memcpy(at, &half, 2);
  }
}

float value_of_bits(int32_t bits, ElementType type) {
  if (type == ElementType::kF16) return half_to_float(static_cast<uint16_t>(bits));
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

enum class Part : uint8_t { kKey, kValue };

const EntryPart& part_of(const EntryFormat& format, Part part) {
  return part == Part::kKey ? format.key : format.value;
}

// The element's bits, f16 zero-extended.
int32_t entry_bits(const KvView& kv, const Lane& lane, int32_t slot, Part part, int32_t dimension) {
  const PageLayout layout = page_layout(kv, lane);
  const int32_t place = slot % layout.slots();
  const int32_t offset = part == Part::kKey ? layout.key_at(place, dimension) : layout.value_at(place, dimension);
  uint32_t bits = 0;
  std::memcpy(&bits, kv.page(lane, slot / layout.slots()) + offset,
              static_cast<size_t>(part_of(layout.format(), part).bytes(1)));
  return static_cast<int32_t>(bits);
}

Matrix entries_of(const CacheContent& content, int32_t lane_index, int32_t count, Part part) {
  const KvView kv = const_cast<CacheContent&>(content).view();
  const Lane& lane = content.lanes[static_cast<size_t>(lane_index)];
  Matrix matrix(count, kv.head_dim);
  const EntryFormat format = entry_format(lane.dtype);
  for (int32_t slot = 0; slot < count; ++slot) {
    for (int32_t i = 0; i < kv.head_dim; ++i) {
      matrix.row(slot)[i] = value_of_bits(entry_bits(kv, lane, slot, part, i), part_of(format, part).element);
    }
  }
  return matrix;
}

void fill_slot(const KvView& kv, const Lane& lane, int32_t slot, std::mt19937& rng) {
  std::normal_distribution<float> normal;
  const PageLayout layout = page_layout(kv, lane);
  std::byte* page = kv.page(lane, slot / layout.slots());
  const int32_t place = slot % layout.slots();
  for (int32_t i = 0; i < kv.head_dim; ++i) {
    put(page + layout.key_at(place, i), layout.format().key.element, normal(rng));
    put(page + layout.value_at(place, i), layout.format().value.element, normal(rng));
  }
}

}  // namespace

CacheContent::CacheContent(std::mt19937& rng, CacheSpec cache_spec) : spec(std::move(cache_spec)) {
  position_stride = densest_slots(spec.head_dim, spec.page_bytes);
  int32_t used_pages = 0;
  for (const CaseLane& lane : spec.lanes) {
    lanes.push_back(lane.lane);
    lanes.back().first_page = used_pages;
    PKV_CHECK(lane.filled <= lane.lane.length, "more entries than slots");
    used_pages += PageLayout{lane.lane.dtype, spec.head_dim, spec.page_bytes}.pages_for(lane.lane.length);
  }
  page_ids.resize(static_cast<size_t>(used_pages + kSparePages));
  std::iota(page_ids.begin(), page_ids.end(), 0);
  std::shuffle(page_ids.begin(), page_ids.end(), rng);
  pool.assign(page_ids.size() * static_cast<size_t>(spec.page_bytes), std::byte{0xff});  // NaN as f16 and as f32
  positions.assign(page_ids.size() * static_cast<size_t>(position_stride), -1);
  const KvView kv = view();
  for (size_t i = 0; i < lanes.size(); ++i) {
    int32_t position = static_cast<int32_t>(rng() % 5);
    for (int32_t slot = 0; slot < spec.lanes[i].filled; ++slot) {
      fill_slot(kv, lanes[i], slot, rng);
      const int32_t slots = page_layout(kv, lanes[i]).slots();
      kv.page_positions(lanes[i], slot / slots)[slot % slots] = position;
      position += 1 + static_cast<int32_t>(rng() % 3);
    }
  }
}

KvView CacheContent::view() {
  return {.pool = pool.data(),
          .positions = positions.data(),
          .page_ids = page_ids.data(),
          .lanes = lanes.data(),
          .lane_count = static_cast<int32_t>(lanes.size()),
          .page_bytes = spec.page_bytes,
          .position_stride = position_stride,
          .head_dim = spec.head_dim};
}

Matrix CacheContent::keys(int32_t lane, int32_t count) const { return entries_of(*this, lane, count, Part::kKey); }
Matrix CacheContent::values(int32_t lane, int32_t count) const { return entries_of(*this, lane, count, Part::kValue); }

namespace {

template <typename T>
std::shared_ptr<std::byte> to_backend(Backend& backend, const std::vector<T>& content) {
  static_assert(sizeof(T) % 4 == 0 || sizeof(T) == 1);
  const size_t bytes = content.size() * sizeof(T);
  PKV_CHECK(bytes % 4 == 0, "memory of a cache in words");
  auto memory = backend.allocate_lazy(std::max<size_t>(bytes, 4));
  PKV_CHECK(memory.ok(), "no memory for a test cache");
  if (bytes > 0) upload_words(backend, memory->get(), content.data(), bytes);
  return *std::move(memory);
}

}  // namespace

CaseCache::CaseCache(Backend& backend, const CacheContent& content)
    : backend_(backend),
      host_(content),
      pool_(to_backend(backend, content.pool)),
      positions_(to_backend(backend, content.positions)),
      page_ids_(to_backend(backend, content.page_ids)),
      lanes_(to_backend(backend, content.lanes)) {}

KvView CaseCache::view() const {
  KvView kv = const_cast<CacheContent&>(host_).view();
  kv.pool = pool_.get();
  kv.positions = reinterpret_cast<int32_t*>(positions_.get());
  kv.page_ids = reinterpret_cast<const int32_t*>(page_ids_.get());
  kv.lanes = reinterpret_cast<Lane*>(lanes_.get());
  return kv;
}

Outputs CaseCache::everything() const {
  Output pool{.name = "pool"}, positions{.name = "positions"};
  pool.exact.resize(host_.pool.size() / 4);
  positions.exact.resize(host_.positions.size());
  download_words(backend_, pool.exact.data(), pool_.get(), host_.pool.size());
  download_words(backend_, positions.exact.data(), positions_.get(), host_.positions.size() * 4);
  return {std::move(pool), std::move(positions)};
}

Output CaseCache::entries(int32_t lane_index, int32_t count) const {
  CacheContent now = host_;
  download_words(backend_, now.pool.data(), pool_.get(), now.pool.size());
  download_words(backend_, now.positions.data(), positions_.get(), now.positions.size() * 4);
  const KvView kv = now.view();
  const Lane& lane = now.lanes[static_cast<size_t>(lane_index)];
  const int32_t slots = page_layout(kv, lane).slots();
  Output output{.name = "lane " + std::to_string(lane_index)};
  for (int32_t slot = 0; slot < count; ++slot) {
    output.exact.push_back(kv.page_positions(lane, slot / slots)[slot % slots]);
    for (int32_t i = 0; i < kv.head_dim; ++i) {
      output.exact.push_back(entry_bits(kv, lane, slot, Part::kKey, i));
      output.exact.push_back(entry_bits(kv, lane, slot, Part::kValue, i));
    }
  }
  return output;
}

}  // namespace pkv
