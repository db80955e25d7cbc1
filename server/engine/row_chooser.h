// Chooses the next tokens of a step's rows, many at once: each row has a generator and edits of its own, so that what
// is chosen depends neither on its neighbours nor on the number of threads.
#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "kernels/backend.h"
#include "server/engine/logit_edits.h"
#include "server/engine/sampler.h"

namespace pkv {

struct ChosenToken {
  TokenId id = 0;
  float logit = 0;  // without edits; NaN: the model made no number
};

class RowChooser {
 public:
  // Rows of `vocabulary` logits. `backend` must outlive this.
  RowChooser(Backend& backend, int32_t vocabulary);
  uint64_t bytes() const;

  struct Row {
    const SamplingParams* sampling = nullptr;
    LogitEdits* edits = nullptr;  // as the row was described to the backend
    std::mt19937_64* rng = nullptr;
    RankedRow ranked;
    TensorView logits;   // [1, V] in backend memory, where ranked.best may not decide
    ChosenToken chosen;  // out
  };
  // An error is the backend's status(): nothing is chosen then.
  absl::Status choose(std::span<Row> rows);

 private:
  // Of a thread.
  struct Place {
    std::vector<float> logits;  // [V]
    RowScratch scratch;
  };

  void choose_of_whole(Row& row, Place& place) const;

  Backend* backend_;
  int32_t vocabulary_;
  std::vector<Place> places_;
  // Reused:
  std::vector<Row*> undecided_;
  std::vector<Fetch> reads_;
};

}  // namespace pkv
