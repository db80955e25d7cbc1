// The paged cache of the operation cases (declared in case_data.h).
#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/check.h"
#include "tests/kernels/case_data.h"
#include "tests/kernels/plain_entries.h"

namespace pkv {
namespace {

constexpr int32_t kSparePages = 3;  // pages of nobody

EntryBits bits_at(const KvView& kv, const Lane& lane, int32_t slot) {
  const PageLayout layout = page_layout(kv, lane);
  return read_bits(layout, kv.page(lane, slot / layout.slots()), slot % layout.slots());
}

PlainEntry entry_at(const KvView& kv, const Lane& lane, int32_t slot) {
  const PageLayout layout = page_layout(kv, lane);
  return read_plain(layout, kv.page(lane, slot / layout.slots()), slot % layout.slots());
}

Matrix entries_of(const CacheContent& content, int32_t lane_index, int32_t count,
                  std::vector<float> PlainEntry::*part) {
  const KvView kv = const_cast<CacheContent&>(content).view();
  const Lane& lane = content.lanes[static_cast<size_t>(lane_index)];
  Matrix matrix(count, kv.head_dim);
  for (int32_t slot = 0; slot < count; ++slot) {
    const PlainEntry entry = entry_at(kv, lane, slot);
    std::copy((entry.*part).begin(), (entry.*part).end(), matrix.row(slot));
  }
  return matrix;
}

void fill_slot(const KvView& kv, const Lane& lane, int32_t slot, std::mt19937& rng) {
  const PageLayout layout = page_layout(kv, lane);
  write_bits(layout, kv.page(lane, slot / layout.slots()), slot % layout.slots(), random_bits(layout, rng));
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
  pool.assign(page_ids.size() * static_cast<size_t>(spec.page_bytes),
              std::byte{0xff});  // NaN, or codes with a scale of NaN
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

Matrix CacheContent::keys(int32_t lane, int32_t count) const {
  return entries_of(*this, lane, count, &PlainEntry::key);
}
Matrix CacheContent::values(int32_t lane, int32_t count) const {
  return entries_of(*this, lane, count, &PlainEntry::value);
}

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

Output CaseCache::entries(int32_t lane_index, int32_t count, const TurnedKeys& turned) const {
  CacheContent now = host_;
  download_words(backend_, now.pool.data(), pool_.get(), now.pool.size());
  download_words(backend_, now.positions.data(), positions_.get(), now.positions.size() * 4);
  const KvView kv = now.view();
  const Lane& lane = now.lanes[static_cast<size_t>(lane_index)];
  const int32_t slots = page_layout(kv, lane).slots();
  Output output{.name = "lane " + std::to_string(lane_index)};
  const auto add = [&](const std::vector<int32_t>& bits, size_t first) {
    output.exact.insert(output.exact.end(), bits.begin() + static_cast<std::ptrdiff_t>(first), bits.end());
  };
  for (int32_t slot = 0; slot < count; ++slot) {
    output.exact.push_back(kv.page_positions(lane, slot / slots)[slot % slots]);
    const EntryBits bits = bits_at(kv, lane, slot);
    size_t numbers = slot >= turned.first_slot && slot < turned.end_slot ? static_cast<size_t>(turned.dims) : 0;
    if (numbers > 0 && !bits.key_scales.empty()) numbers = bits.key.size();  // a scale is of all of a key
    const std::vector<float> key = entry_at(kv, lane, slot).key;
    output.floats.insert(output.floats.end(), key.begin(), key.begin() + static_cast<std::ptrdiff_t>(numbers));
    add(bits.key, numbers);
    add(bits.key_scales, numbers > 0 ? bits.key_scales.size() : 0);
    add(bits.value, 0);
    add(bits.value_scales, 0);
  }
  return output;
}

std::vector<double> turned_tolerance(const Output& expected, KvDtype dtype) {
  constexpr double kArithmetic = 4e-6;
  float largest = 0;
  for (const float value : expected.floats) largest = std::max(largest, std::abs(value));
  switch (dtype) {
    case KvDtype::kF16:
      return relative_tolerance(expected.floats, 0x1p-10, kArithmetic);
    case KvDtype::kBF16:
      return relative_tolerance(expected.floats, 0x1p-7, kArithmetic);
    case KvDtype::kK8V4:
      return relative_tolerance(expected.floats, 0x1p-10, kArithmetic + 1.001 * largest / 127);
    case KvDtype::kF32:
      return relative_tolerance(expected.floats, 1e-6, kArithmetic);
  }
  PKV_CHECK(false, "no such format");
}

}  // namespace pkv
