// A paged cache of random lanes in shuffled pages, its contents in double precision beside it, and plain
// double-precision attention over them.
#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cpu/isa.h"
#include "tests/kernels/plain_entries.h"

namespace pkv {

struct LaneShape {
  int32_t length = 0;
  KvDtype dtype = KvDtype::kF16;
};

// Each instruction-set path this machine has, by the name BackendOptions::isa knows.
struct IsaPath {
  std::string name;
  IsaFeatures features;
};
std::vector<IsaPath> isa_paths();

std::vector<float> random_floats(size_t count, uint32_t seed);
TensorView matrix(std::vector<float>& data, int64_t rows);

class PagedLanes {
 public:
  // Every lane holds `length` random entries (rounded to its format) with positions 0, 1, ..., and room for `spare`
  // more.
  PagedLanes(int32_t head_dim, int32_t page_bytes, const std::vector<LaneShape>& shapes, int32_t spare, uint32_t seed);

  KvView view() const;
  // As before a step of `rows` rows whose entries are already written: the first sees all but rows - 1 slots.
  void show(int32_t rows);

  PlainEntry entry(int32_t lane, int32_t slot) const;
  float key(int32_t lane, int32_t slot, int32_t dim) const { return entry(lane, slot).key[static_cast<size_t>(dim)]; }
  float value(int32_t lane, int32_t slot, int32_t dim) const {
    return entry(lane, slot).value[static_cast<size_t>(dim)];
  }
  int32_t& position(int32_t lane, int32_t slot) const;
  void swap_slots(int32_t lane, int32_t a, int32_t b);

  mutable std::vector<Lane> lanes;  // a view may be written through

 private:
  struct Place {
    PageLayout layout;
    std::byte* page;
    int32_t place;
  };
  Place place(int32_t lane, int32_t slot) const;

  int32_t head_dim_, page_bytes_, position_stride_;
  std::vector<int32_t> page_ids_;
  mutable std::vector<std::byte> pool_;
  mutable std::vector<int32_t> positions_;
};

// A lane's entries, slot by slot.
struct DenseLane {
  DenseLane(const PagedLanes& cache, int32_t lane);
  std::vector<double> keys;    // [length, head_dim]
  std::vector<double> values;  // [length, head_dim]
};

// One query head against the first `visible` slots of a lane.
struct OracleRow {
  std::vector<double> weights;  // [visible]
  std::vector<double> out;      // [head_dim]
  double lse = 0;
};
// q [head_dim]; scores are scaled by 1 / sqrt(head_dim).
OracleRow oracle_attend(const DenseLane& lane, int32_t visible, std::span<const float> q);

}  // namespace pkv
