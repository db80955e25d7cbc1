// A cache for tests of the model alone: one block of memory with enough pages for every lane, handed out in an order
// that is not that of the lanes, and the StepPlans that go with it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "server/model/model.h"
#include "tests/support/backend_array.h"

namespace pkv::test {

class FakeCache {
 public:
  // Room for `capacity` tokens in every lane of `sequences` sequences; float32 entries, in pages of a few slots.
  FakeCache(Backend& backend, const ModelShape& shape, int32_t sequences, int32_t capacity);

  // Tokens that follow the first `begin` ones of a sequence.
  struct Rows {
    int32_t sequence = 0;
    int32_t begin = 0;
    std::vector<int32_t> tokens;
  };
  // A step that runs the layers [first_layer, first_layer + layers). Valid until the next one.
  const StepPlan& plan(Phase phase, std::span<const Rows> rows, int32_t first_layer, int32_t layers);

  // All pages, as words.
  std::vector<int32_t> pool();

 private:
  Backend& backend_;
  const ModelShape& shape_;
  int32_t page_bytes_;
  int32_t pages_per_lane_;
  int32_t total_pages_;
  BackendArray<int32_t> pool_, positions_, page_ids_;
  BackendArray<int32_t> token_ids_, row_positions_;
  BackendArray<RowSpan> spans_;
  BackendArray<Lane> lanes_;
  StepPlan plan_;
};

}  // namespace pkv::test
