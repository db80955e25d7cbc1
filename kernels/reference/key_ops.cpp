// The reference backend's operations on a lane's entries where no query takes part: moving them, norms of values, and
// norms, similarity and rotation of keys.
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/check.h"
#include "kernels/reference/reference_backend.h"
#include "kernels/reference/unpacked_lane.h"

namespace pkv {
namespace {

// One entry's bits.
struct Entry {
  std::vector<std::byte> key, value;
  int32_t position = 0;
};

// Calls copy(bytes in the page, bytes of the entry, count) for every part of the entry at `slot` that lies in one
// piece.
template <typename Copy>
void for_each_piece(const KvView& kv, const Lane& lane, int32_t slot, Entry& entry, Copy copy) {
  const PageLayout layout = page_layout(kv, lane);
  const EntryFormat& format = layout.format();
  std::byte* page = kv.page(lane, slot / layout.slots());
  const int32_t place = slot % layout.slots();
  const auto element = static_cast<size_t>(format.key.bytes(1));
  entry.key.resize(static_cast<size_t>(format.key.bytes(kv.head_dim)));
  entry.value.resize(static_cast<size_t>(format.value.bytes(kv.head_dim)));
  for (int32_t i = 0; i < kv.head_dim; ++i) {
    copy(page + layout.key_at(place, i), entry.key.data() + static_cast<size_t>(i) * element, element);
  }
  copy(page + layout.value_at(place, 0), entry.value.data(), entry.value.size());
}

Entry read_entry(const KvView& kv, const Lane& lane, int32_t slot) {
  PKV_CHECK(slot >= 0 && slot < lane.length, "an entry outside the lane");
  Entry entry;
  for_each_piece(kv, lane, slot, entry,
                 [](const std::byte* stored, std::byte* read, size_t count) { std::memcpy(read, stored, count); });
  const int32_t slots = page_layout(kv, lane).slots();
  entry.position = kv.page_positions(lane, slot / slots)[slot % slots];
  return entry;
}

void write_entry(const KvView& kv, const Lane& lane, int32_t slot, Entry& entry) {
  for_each_piece(kv, lane, slot, entry,
                 [](std::byte* stored, const std::byte* read, size_t count) { std::memcpy(stored, read, count); });
  const int32_t slots = page_layout(kv, lane).slots();
  kv.page_positions(lane, slot / slots)[slot % slots] = entry.position;
}

double length_of(const float* vector, int64_t count) { return std::sqrt(reference_dot(vector, vector, count)); }

}  // namespace

void ReferenceBackend::gather(const KvView& kv, int32_t from, const TensorView& kept, const TensorView& counts,
                              int32_t to) {
  PKV_CHECK(counts.cols == kept.rows, "a count for each lane");
  for (int32_t g = 0; g < static_cast<int32_t>(kept.rows); ++g) {
    const int32_t count = counts.i32()[g];
    const Lane& source = kv.lanes[from + g];
    const Lane& target = kv.lanes[to + g];
    PKV_CHECK(count >= 0 && count <= kept.cols, "as many slots as there are to gather");
    PKV_CHECK(source.dtype == target.dtype, "entries move between lanes of one format");
    std::vector<Entry> entries;
    for (int32_t i = 0; i < count; ++i) entries.push_back(read_entry(kv, source, kept.i32_row(g)[i]));
    for (int32_t i = 0; i < count; ++i) write_entry(kv, target, i, entries[static_cast<size_t>(i)]);
  }
}

void ReferenceBackend::value_norms(const KvView& kv, int32_t first_lane, int32_t kv_heads, const TensorView& factors,
                                   const TensorView& norms) {
  const int64_t d = kv.head_dim, group = norms.rows / kv_heads;
  PKV_CHECK(group * kv_heads == norms.rows && factors.rows == norms.rows * d && factors.cols == d,
            "shapes of value_norms");
  for (int64_t h = 0; h < norms.rows; ++h) {
    const UnpackedLane lane(kv, kv.lanes[first_lane + h / group], static_cast<int32_t>(norms.cols));
    for (int64_t j = 0; j < norms.cols; ++j) {
      double squares = 0;
      for (int64_t c = 0; c < d; ++c) {
        double product = 0;
        for (int64_t r = c; r < d; ++r) {
          product += static_cast<double>(lane.value(j)[r]) * factors.f32_row(h * d + r)[c];
        }
        squares += product * product;
      }
      norms.f32_row(h)[j] = static_cast<float>(std::sqrt(squares));
    }
  }
}

void ReferenceBackend::key_norms(const KvView& kv, int32_t first_lane, const TensorView& norms) {
  for (int64_t g = 0; g < norms.rows; ++g) {
    const UnpackedLane lane(kv, kv.lanes[first_lane + g], static_cast<int32_t>(norms.cols));
    for (int64_t j = 0; j < norms.cols; ++j) {
      norms.f32_row(g)[j] = static_cast<float>(length_of(lane.key(j), kv.head_dim));
    }
  }
}

void ReferenceBackend::key_similarity(const KvView& kv, int32_t first_lane, const TensorView& unit_sums,
                                      const TensorView& cosines) {
  const auto d = static_cast<size_t>(kv.head_dim);
  PKV_CHECK(unit_sums.rows == cosines.rows && unit_sums.cols == kv.head_dim, "shapes of key_similarity");
  for (int64_t g = 0; g < cosines.rows; ++g) {
    const UnpackedLane lane(kv, kv.lanes[first_lane + g], static_cast<int32_t>(cosines.cols));
    std::vector<double> sum(d, 0.0);
    for (int64_t j = 0; j < cosines.cols; ++j) {
      const double length = length_of(lane.key(j), kv.head_dim);
      for (size_t i = 0; i < d && length > 0; ++i) sum[i] += lane.key(j)[i] / length;
    }
    double sum_length = 0;
    for (size_t i = 0; i < d; ++i) {
      unit_sums.f32_row(g)[i] = static_cast<float>(sum[i]);
      sum_length += sum[i] * sum[i];
    }
    sum_length = std::sqrt(sum_length);
    for (int64_t j = 0; j < cosines.cols; ++j) {
      double product = 0;
      for (size_t i = 0; i < d; ++i) product += lane.key(j)[i] * sum[i];
      const double lengths = length_of(lane.key(j), kv.head_dim) * sum_length;
      cosines.f32_row(g)[j] = lengths > 0 ? static_cast<float>(product / lengths) : 0.0f;
    }
  }
}

void ReferenceBackend::turn_keys(const KvView& kv, int32_t first_lane, int32_t lanes, int32_t first_slot, int32_t delta,
                                 const RopeSpec& spec) {
  PKV_CHECK(spec.head_dim == kv.head_dim, "the rotation is for another head size");
  RopeSpec turn = spec;
  turn.magnitude = 1;  // it was multiplied in when the keys were rotated first
  for (int32_t index = first_lane; index < first_lane + lanes; ++index) {
    const Lane& lane = kv.lanes[index];
    const PageLayout layout = page_layout(kv, lane);
    UnpackedLane unpacked(kv, lane, lane.length);
    for (int32_t slot = first_slot; slot < lane.length; ++slot) {
      float* key = unpacked.keys.data() + static_cast<int64_t>(slot) * kv.head_dim;
      rope({key, DType::kF32, 1, kv.head_dim, kv.head_dim}, &delta, turn);
      std::byte* page = kv.page(lane, slot / layout.slots());
      for (int32_t i = 0; i < kv.head_dim; ++i) {
        store_element(page + layout.key_at(slot % layout.slots(), i), layout.format().key.element, key[i]);
      }
    }
  }
}

}  // namespace pkv
