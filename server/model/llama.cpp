// The architecture `llama` (LLaMA, arXiv 2302.13971): pre-normalised blocks of grouped-query attention with rotary
// positions and a SwiGLU feed-forward, every projection without or (as some fine-tunes have it) with a bias on q, k and
// v.
#include <cmath>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/status_macros.h"
#include "server/model/architectures.h"
#include "server/model/hyperparameters.h"
#include "server/model/weight_loader.h"

namespace pkv {
namespace {

struct LlamaLayer {
  Tensor attention_norm;                     // [1, D]
  std::unique_ptr<Weight> q, k, v;           // D -> heads * d
  Tensor q_bias, k_bias, v_bias;             // [1, heads * d] or empty
  std::unique_ptr<Weight> attention_output;  // Hq * d -> D
  Tensor feed_forward_norm;                  // [1, D]
  std::unique_ptr<Weight> gate, up;          // D -> F
  std::unique_ptr<Weight> down;              // F -> D
};

struct LlamaWeights {
  std::unique_ptr<Weight> embedding;  // [V, D]
  std::vector<LlamaLayer> layers;
  Tensor output_norm;                // [1, D]
  std::unique_ptr<Weight> own_head;  // [V, D]; nullptr where the embedding is the output head too
  const Weight& head() const { return own_head ? *own_head : *embedding; }
};

LlamaLayer load_layer(WeightLoader& loader, const ModelShape& shape, int32_t index) {
  const std::string prefix = absl::StrCat("blk.", index, ".");
  const int64_t width = shape.width, feed_forward = shape.feed_forward;
  const int64_t q_width = int64_t{shape.q_heads} * shape.head_dim, kv_width = int64_t{shape.kv_heads} * shape.head_dim;
  LlamaLayer layer;
  layer.attention_norm = loader.vector(prefix + "attn_norm.weight", width);
  layer.q = loader.matrix(prefix + "attn_q.weight", width, q_width);
  layer.k = loader.matrix(prefix + "attn_k.weight", width, kv_width);
  layer.v = loader.matrix(prefix + "attn_v.weight", width, kv_width);
  layer.q_bias = loader.optional_vector(prefix + "attn_q.bias", q_width);
  layer.k_bias = loader.optional_vector(prefix + "attn_k.bias", kv_width);
  layer.v_bias = loader.optional_vector(prefix + "attn_v.bias", kv_width);
  layer.attention_output = loader.matrix(prefix + "attn_output.weight", q_width, width);
  layer.feed_forward_norm = loader.vector(prefix + "ffn_norm.weight", width);
  layer.gate = loader.matrix(prefix + "ffn_gate.weight", width, feed_forward);
  layer.up = loader.matrix(prefix + "ffn_up.weight", width, feed_forward);
  layer.down = loader.matrix(prefix + "ffn_down.weight", feed_forward, width);
  loader.ignore(prefix + "attn_rot_embd");  // frequencies some old converters wrote; they follow from the keys
  return layer;
}

LlamaWeights load_weights(WeightLoader& loader, const GgufFile& file, const ModelShape& shape) {
  LlamaWeights weights;
  weights.embedding = loader.matrix("token_embd.weight", shape.width, shape.vocab_size);
  for (int32_t i = 0; i < shape.layers; ++i) weights.layers.push_back(load_layer(loader, shape, i));
  weights.output_norm = loader.vector("output_norm.weight", shape.width);
  if (file.find_tensor("output.weight") != nullptr) {
    weights.own_head = loader.matrix("output.weight", shape.width, shape.vocab_size);
  }
  loader.ignore("rope_freqs.weight");  // read_rope() reads it
  return weights;
}

class LlamaModel final : public Model {
 public:
  LlamaModel(Backend& backend, ModelShape shape, Tensor inv_freq, float rope_magnitude, LlamaWeights weights,
             size_t weight_bytes)
      : Model(backend),
        shape_(std::move(shape)),
        inv_freq_(std::move(inv_freq)),
        rope_magnitude_(rope_magnitude),
        weights_(std::move(weights)),
        weight_bytes_(weight_bytes) {}

  const ModelShape& shape() const override { return shape_; }
  size_t weight_bytes() const override { return weight_bytes_; }
  RopeSpec rope() const override {
    return {.inv_freq = inv_freq_.view().f32(),
            .pairs = static_cast<int32_t>(inv_freq_.view().cols),
            .pairing = RopePairing::kAdjacent,
            .head_dim = shape_.head_dim,
            .magnitude = rope_magnitude_};
  }

  void embed(const int32_t* token_ids, const TensorView& x) const override {
    backend().embed(*weights_.embedding, token_ids, x);
  }

  void run_layer(const StepPlan& plan, int32_t index, const TensorView& x, StepScratch& scratch,
                 int32_t outputs) const override {
    const LlamaLayer& layer = weights_.layers[static_cast<size_t>(index)];
    project_qkv(layer, plan, x, scratch);
    const KvView cache = plan.view(index);
    backend().write_kv(scratch.k.rows(plan.rows()), scratch.v.rows(plan.rows()), plan.positions.data(), cache,
                       plan.row_spans(), shape_.kv_heads);
    if (outputs == 0) return;
    const TensorView carried = x.slice_rows(plan.rows() - outputs, outputs);
    add_attention(layer, plan, cache, scratch, carried);
    add_feed_forward(layer, plan.phase, scratch, carried);
  }

  void logits(const TensorView& x, Phase phase, const TensorView& normed, const TensorView& logits) const override {
    backend().rms_norm(x, weights_.output_norm.view(), shape_.rms_eps, normed);
    backend().linear(normed, weights_.head(), /*accumulate=*/false, phase, logits);
  }

 private:
  // q, k, v = rope(norm(x) W + bias), v without rope.
  void project_qkv(const LlamaLayer& layer, const StepPlan& plan, const TensorView& x, StepScratch& scratch) const {
    const TensorView normed = scratch.normed.rows(plan.rows());
    const TensorView q = scratch.q.rows(plan.rows()), k = scratch.k.rows(plan.rows()), v = scratch.v.rows(plan.rows());
    backend().rms_norm(x, layer.attention_norm.view(), shape_.rms_eps, normed);
    backend().linear(normed, *layer.q, /*accumulate=*/false, plan.phase, q);
    backend().linear(normed, *layer.k, /*accumulate=*/false, plan.phase, k);
    backend().linear(normed, *layer.v, /*accumulate=*/false, plan.phase, v);
    if (layer.q_bias) backend().add_bias(q, layer.q_bias.view());
    if (layer.k_bias) backend().add_bias(k, layer.k_bias.view());
    if (layer.v_bias) backend().add_bias(v, layer.v_bias.view());
    backend().rope(q, plan.angles.data(), rope());
    backend().rope(k, plan.angles.data(), rope());
  }

  // x += attention(q, cache) W, for the step's last rows, which are those of x.
  void add_attention(const LlamaLayer& layer, const StepPlan& plan, const KvView& cache, StepScratch& scratch,
                     const TensorView& x) const {
    const auto outputs = static_cast<int32_t>(x.rows);
    const int32_t skipped = plan.rows() - outputs;
    const TensorView attention = scratch.attention.rows(outputs);
    backend().attend({.q = scratch.q.view().slice_rows(skipped, outputs),
                      .out = attention,
                      .lse = {},
                      .kv = cache,
                      .spans = plan.row_spans(),
                      .skipped_rows = skipped,
                      .q_heads = shape_.q_heads,
                      .kv_heads = shape_.kv_heads,
                      .scale = 1.0f / std::sqrt(static_cast<float>(shape_.head_dim)),
                      .phase = plan.phase});
    backend().linear(attention, *layer.attention_output, /*accumulate=*/true, plan.phase, x);
  }

  // x += (silu(norm(x) Wgate) * (norm(x) Wup)) Wdown.
  void add_feed_forward(const LlamaLayer& layer, Phase phase, StepScratch& scratch, const TensorView& x) const {
    const auto rows = static_cast<int32_t>(x.rows);
    const TensorView normed = scratch.normed.rows(rows), gate = scratch.gate.rows(rows), up = scratch.up.rows(rows);
    backend().rms_norm(x, layer.feed_forward_norm.view(), shape_.rms_eps, normed);
    backend().linear(normed, *layer.gate, /*accumulate=*/false, phase, gate);
    backend().linear(normed, *layer.up, /*accumulate=*/false, phase, up);
    backend().silu_mul(gate, up);
    backend().linear(gate, *layer.down, /*accumulate=*/true, phase, x);
  }

  ModelShape shape_;
  Tensor inv_freq_;  // [1, pairs]
  float rope_magnitude_;
  LlamaWeights weights_;
  size_t weight_bytes_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Model>> load_llama(const GgufFile& file, Backend& backend, std::stop_token stop) {
  PKV_ASSIGN_OR_RETURN(ModelShape shape, read_shape(file, "llama"));
  PKV_RETURN_IF_ERROR(check_attention(shape, backend));
  PKV_ASSIGN_OR_RETURN(const RopeParameters rope, read_rope(file, shape));
  WeightLoader loader(file, backend, std::move(stop));
  LlamaWeights weights = load_weights(loader, file, shape);
  PKV_RETURN_IF_ERROR(loader.finish());
  shape.weights = loader.most_frequent_format();
  PKV_ASSIGN_OR_RETURN(Tensor inv_freq, backend.allocate(1, static_cast<int64_t>(rope.inv_freq.size()), DType::kF32));
  backend.upload(inv_freq.view(), rope.inv_freq.data());
  return std::make_unique<LlamaModel>(backend, std::move(shape), std::move(inv_freq), rope.magnitude,
                                      std::move(weights), loader.bytes());
}

}  // namespace pkv
