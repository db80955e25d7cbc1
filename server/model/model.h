// A model: immutable after loading, runs one layer at a time over a StepPlan. It knows the cache only as views and does
// not know that policies exist. One file per architecture; the registry picks it by the GGUF's general.architecture.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "server/cache/step_plan.h"
#include "server/model/gguf.h"
#include "server/model/loading.h"

namespace pkv {

struct ModelShape {
  std::string architecture;  // llama, qwen2, qwen3
  std::string weights;       // most frequent weight format by size, e.g. Q4_1
  int32_t layers = 0;
  int32_t q_heads = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  int32_t width = 0;         // D
  int32_t feed_forward = 0;  // F
  int32_t vocab_size = 0;
  int32_t max_positions = 0;  // the longest prompt + answer
  float rms_eps = 0;

  int32_t group() const { return q_heads / kv_heads; }
  // Bytes a full cache needs for one token, entries only.
  uint64_t kv_bytes_per_token(KvDtype dtype) const {
    return static_cast<uint64_t>(layers) * static_cast<uint64_t>(kv_heads) *
           static_cast<uint64_t>(entry_format(dtype).entry_bytes(head_dim));
  }
};

// Scratch tensors of one step, allocated once for the largest step and shared by all steps of the engine thread.
// `rows` as asked for; everything float32.
struct StepScratch {
  Tensor normed;     // [rows, D]
  Tensor q;          // [rows, Hq * d]: after Model::run_layer the layer's queries, rotated
  Tensor k;          // [rows, Hkv * d]
  Tensor v;          // [rows, Hkv * d]
  Tensor attention;  // [rows, Hq * d]
  Tensor lse;        // [rows, Hq]: with LayerRun::lse, of the rows that are carried on
  Tensor gate;       // [rows, F]
  Tensor up;         // [rows, F]
  int32_t rows = 0;
  uint64_t bytes = 0;  // of all of them
};

// What of a layer is run: all of it, unless keys come first and rows later.
struct LayerRun {
  int32_t outputs = 0;  // rows that are carried on, the plan's last
  bool queries = true;
  bool keys = true;       // keys and values; without them those of the plan's rows are in its lanes already
  bool lse = false;       // attention's log-sum-exps are wanted
  SparsePattern pattern;  // of what the rows see; set only with one span
};

class Model {
 public:
  virtual ~Model() = default;
  virtual const ModelShape& shape() const = 0;
  virtual size_t weight_bytes() const = 0;  // resident bytes of the prepared weights
  virtual RopeSpec rope() const = 0;        // how queries and keys are rotated; valid as long as the model
  Backend& backend() const { return backend_; }
  // [layers * Hq * d, d]: of every query head what its values weigh in the layer's output (value_factors.h). Counted in
  // resident_bytes() beside the weights.
  TensorView value_factors() const { return value_factors_.view(); }
  size_t resident_bytes() const { return weight_bytes() + value_factors_.bytes(); }

  absl::StatusOr<StepScratch> make_scratch(int32_t rows) const;

  // x[r] = embedding of token_ids[r], which is backend memory. x [rows, D].
  virtual void embed(const int32_t* token_ids, const TensorView& x) const = 0;

  // One layer over the plan's rows, x [rows, D] in place: writes the rows' keys and values to the plan's lanes and
  // attends. Afterwards scratch.q, k and v hold the rows' queries, keys (both rotated) and values, for whoever observes
  // them. With run.outputs < rows only the last `outputs` rows of x are carried on (the last layer of a prompt needs
  // only what the head reads); the others' x is then undefined where outputs > 0, but all keys and values are written
  // and all queries computed, as far as the run has them.
  virtual void run_layer(const StepPlan& plan, int32_t layer, const TensorView& x, StepScratch& scratch,
                         const LayerRun& run) const = 0;

  // Final norm and output head. x [R, D], normed [R, D] scratch, logits [R, V].
  virtual void logits(const TensorView& x, Phase phase, const TensorView& normed, const TensorView& logits) const = 0;

 protected:
  explicit Model(Backend& backend) : backend_(backend) {}

 private:
  friend absl::StatusOr<std::unique_ptr<Model>> load_model(const GgufFile& file, Backend& backend,
                                                           const Loading& loading);

  Backend& backend_;
  Tensor value_factors_;
};

// Loads the model of an open file, which must stay open as long as the model lives. INVALID_ARGUMENT naming the key or
// tensor that is wrong, UNIMPLEMENTED for an architecture, a rope scaling or a format this build cannot run, CANCELLED
// between two tensors once `loading.stop` is requested.
absl::StatusOr<std::unique_ptr<Model>> load_model(const GgufFile& file, Backend& backend, const Loading& loading = {});

}  // namespace pkv
