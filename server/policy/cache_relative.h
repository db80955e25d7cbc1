// Positions relative to the cache (StreamingLLM, arXiv 2309.17453, section 3.2): every key counts as standing at its
// place in the cache, so no position grows beyond what the cache holds and generation may go on for ever.
//
// The paper rotates all keys anew at every step. Attention depends on distances alone, and among the newest tokens
// these are the same in the cache as in the text; so those keys stay as they are, and only the few sinks move along
// with the text, turned from copies that were never rounded. When the positions in use reach the model's length,
// everything but the sinks is turned back once to where it stands in the cache.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "server/cache/step_buffer.h"

namespace pkv {

class CacheRelative {
 public:
  struct Options {
    int32_t sinks = 0;
    int32_t prompt_tokens = 0;
    int32_t max_positions = 0;  // of the model
    RopeSpec rope;
  };
  // RESOURCE_EXHAUSTED where the backend has no memory for the copies. `cache` must outlive this.
  static absl::StatusOr<std::unique_ptr<CacheRelative>> create(KvCache& cache, const Options& options);
  // What create() allocates: float32 keys and values of the sinks in every layer.
  static uint64_t state_bytes(const CacheGeometry& geometry, int32_t sinks);

  // Rows [first_row, first_row + k.rows) of the prompt have gone through the layer: k, v [rows, Hkv * d], k rotated.
  void capture(int32_t layer, const TensorView& k, const TensorView& v, int32_t first_row);
  // Before the next token is written, when its lanes hold `length` entries with it: moves the keys where they have to
  // go. The sinks lie in slots 0.. of every lane. Returns the position by which the token's query and key are to be
  // rotated.
  int32_t begin_token(SequenceId sequence, int32_t length);

 private:
  CacheRelative(KvCache& cache, const Options& options, StepBuffer buffer)
      : cache_(cache), backend_(cache.backend()), options_(options), buffer_(std::move(buffer)) {}
  void write_sinks(SequenceId sequence, int32_t delta);
  void turn_back(SequenceId sequence, int32_t shift);
  int32_t sinks() const { return std::min(options_.sinks, options_.prompt_tokens); }

  KvCache& cache_;
  Backend& backend_;
  Options options_;
  StepBuffer buffer_;     // of the sinks as one layer's rows
  Tensor keys_, values_;  // [layers * sinks, Hkv * d]
  Tensor turned_;         // [sinks, Hkv * d]
  int32_t next_ = -1;     // angle of the next token; -1: the prompt is not done
  int32_t delta_ = 0;     // by which the stored sinks are turned
};

}  // namespace pkv
