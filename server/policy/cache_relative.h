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

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/tensor_set.h"
#include "server/cache/kv_cache.h"

namespace pkv {

class CacheRelative {
 public:
  struct Options {
    CacheGeometry geometry;
    int32_t sinks = 0;
    int32_t prompt_tokens = 0;
    int32_t max_positions = 0;  // of the model
    RopeSpec rope;
  };
  // RESOURCE_EXHAUSTED where the backend has no memory for the copies. `backend` must outlive this.
  static absl::StatusOr<std::unique_ptr<CacheRelative>> create(Backend& backend, const Options& options);
  // What create() allocates: float32 keys and values of the sinks in every layer.
  static uint64_t state_bytes(const CacheGeometry& geometry, int32_t sinks);

  // Rows [first_row, first_row + k.rows) of the prompt have gone through the layer: k, v [rows, Hkv * d], k rotated.
  void capture(int32_t layer, const TensorView& k, const TensorView& v, int32_t first_row);
  // The next token is to be written, its lanes holding `length` entries with it. Returns the position by which its
  // query and key are to be rotated.
  int32_t begin_token(int32_t length);
  // Before it is written: moves the keys where they have to go for it. The sinks lie in slots 0.. of every lane. Lanes
  // of layer l in `kv`: l * lanes_per_layer + first_lane + kv_head.
  void move_keys(const KvView& kv, int32_t first_lane, int32_t lanes_per_layer);

 private:
  CacheRelative(Backend& backend, const Options& options) : backend_(backend), options_(options) {}
  static TensorSet<CacheRelative> tensors(const CacheGeometry& geometry, int32_t sinks);
  int32_t sinks() const { return std::min(options_.sinks, options_.prompt_tokens); }

  Backend& backend_;
  Options options_;
  Tensor keys_, values_;  // [layers * sinks(), Hkv * d], allocated for as many as the policy may have
  Tensor turned_;         // [sinks(), Hkv * d] likewise
  int32_t next_ = -1;     // angle of the next token; -1: the prompt is not done
  int32_t delta_ = 0;     // by which the sinks have to be turned for the token under way
  int32_t stored_ = 0;    // by which they are
  int32_t back_ = 0;      // by which everything else has to be turned back for it
};

}  // namespace pkv
