// A cache for tests of the model alone: one block of memory with enough pages for every lane, handed out in an order
// that is not that of the lanes, and the StepPlans that go with it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "server/model/model.h"

namespace pkv::test {

class FakeCache {
 public:
  // Room for `capacity` tokens in every lane of `sequences` sequences; float32 entries, in pages of a few slots.
  FakeCache(const ModelShape& shape, int32_t sequences, int32_t capacity);

  // Tokens that follow the first `begin` ones of a sequence.
  struct Rows {
    int32_t sequence = 0;
    int32_t begin = 0;
    std::vector<int32_t> tokens;
  };
  // A step that runs the layers [first_layer, first_layer + layers).
  StepPlan plan(Phase phase, std::span<const Rows> rows, int32_t first_layer, int32_t layers);

  const std::vector<std::byte>& pool() const { return pool_; }

 private:
  const ModelShape& shape_;
  int32_t page_bytes_;
  int32_t pages_per_lane_;
  int32_t total_pages_;
  std::vector<std::byte> pool_;
  std::vector<int32_t> positions_;
};

}  // namespace pkv::test
