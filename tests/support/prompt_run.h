// Runs one sequence through a model outside the engine, with a full cache: for golden values and fidelity, which need
// the logits of every position.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "server/cache/step_buffer.h"
#include "server/model/model.h"

namespace pkv {

class PromptRun {
 public:
  static constexpr int32_t kLogitRows = 64;

  // `dtype`: entries of the cache. `max_tokens`: prompt plus what decode() will add.
  static absl::StatusOr<std::unique_ptr<PromptRun>> create(const Model& model, KvDtype dtype, int32_t max_tokens);

  // Rows [first_row, first_row + q.rows) have just gone through a layer: their rotated queries, and the layer's lanes.
  using Observer = std::function<void(int32_t layer, int32_t first_row, const TensorView& q, const KvView& kv)>;

  // The whole prompt, layer by layer in chunks.
  absl::Status prefill(std::span<const int32_t> prompt, const Observer& observer = {});
  // Logits [count, V] of prompt rows [first, first + count), count <= kLogitRows. Only between prefill() and decode().
  std::vector<float> prompt_logits(int32_t first, int32_t count);
  // One more token against the cache; logits [V].
  absl::StatusOr<std::vector<float>> decode(int32_t token);
  // Evicts the entry at `slot` from every lane of every layer. All lanes must be longer than that.
  absl::Status remove_slot(int32_t slot);

 private:
  explicit PromptRun(const Model& model) : model_(model) {}
  absl::Status run_layer(int32_t layer, int32_t first_row, const TensorView& rows, Phase phase,
                         const Observer& observer = {});
  void embed(std::span<const int32_t> tokens, const TensorView& x);

  const Model& model_;
  std::unique_ptr<KvCache> cache_;
  SequenceId sequence_ = nullptr;
  std::optional<StepBuffer> buffer_;
  StepScratch scratch_;
  Tensor x_, normed_, logits_;
  int32_t length_ = 0;
};

}  // namespace pkv
