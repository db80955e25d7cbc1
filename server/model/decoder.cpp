// Loads and runs the blocks that the architectures share.
#include "server/model/decoder.h"

#include <cmath>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/status_macros.h"
#include "server/model/hyperparameters.h"

namespace pkv {
namespace {

struct DecoderWeights {
  std::unique_ptr<Weight> embedding;  // [V, D]
  std::vector<DecoderLayer> layers;
  Tensor output_norm;                // [1, D]
  std::unique_ptr<Weight> own_head;  // [V, D]; nullptr where the embedding is the output head too
  const Weight& head() const { return own_head ? *own_head : *embedding; }
};

DecoderLayer load_layer(WeightLoader& loader, const ModelShape& shape, const std::string& prefix) {
  const int64_t width = shape.width, feed_forward = shape.feed_forward;
  const int64_t q_width = int64_t{shape.q_heads} * shape.head_dim, kv_width = int64_t{shape.kv_heads} * shape.head_dim;
  DecoderLayer layer;
  // Tolerant are products that go through a softmax or a gate, or add to x what attention has averaged. Keys and values
  // are kept and read again by every later token; what "down" multiplies has the widest range of all.
  layer.attention_norm = loader.vector(prefix + "attn_norm.weight", width);
  layer.q = loader.tolerant_matrix(prefix + "attn_q.weight", width, q_width);
  layer.k = loader.matrix(prefix + "attn_k.weight", width, kv_width);
  layer.v = loader.matrix(prefix + "attn_v.weight", width, kv_width);
  layer.attention_output = loader.tolerant_matrix(prefix + "attn_output.weight", q_width, width);
  layer.feed_forward_norm = loader.vector(prefix + "ffn_norm.weight", width);
  layer.gate = loader.tolerant_matrix(prefix + "ffn_gate.weight", width, feed_forward);
  layer.up = loader.tolerant_matrix(prefix + "ffn_up.weight", width, feed_forward);
  layer.down = loader.matrix(prefix + "ffn_down.weight", feed_forward, width);
  return layer;
}

DecoderWeights load_weights(const DecoderArchitecture& architecture, WeightLoader& loader, const GgufFile& file,
                            const ModelShape& shape) {
  DecoderWeights weights;
  weights.embedding = loader.matrix("token_embd.weight", shape.width, shape.vocab_size);
  for (int32_t i = 0; i < shape.layers; ++i) {
    const std::string prefix = absl::StrCat("blk.", i, ".");
    architecture.load_extras(loader, shape, prefix, weights.layers.emplace_back(load_layer(loader, shape, prefix)));
  }
  weights.output_norm = loader.vector("output_norm.weight", shape.width);
  if (file.find_tensor("output.weight") != nullptr) {
    weights.own_head = loader.matrix("output.weight", shape.width, shape.vocab_size);
  }
  loader.ignore("rope_freqs.weight");  // read_rope() reads it
  return weights;
}

class DecoderModel final : public Model {
 public:
  DecoderModel(Backend& backend, ModelShape shape, RopePairing pairing, Tensor inv_freq, float rope_magnitude,
               DecoderWeights weights, size_t weight_bytes)
      : Model(backend),
        shape_(std::move(shape)),
        pairing_(pairing),
        inv_freq_(std::move(inv_freq)),
        rope_magnitude_(rope_magnitude),
        weights_(std::move(weights)),
        weight_bytes_(weight_bytes) {}

  const ModelShape& shape() const override { return shape_; }
  size_t weight_bytes() const override { return weight_bytes_; }
  RopeSpec rope() const override {
    return {.inv_freq = inv_freq_.view().f32(),
            .pairs = static_cast<int32_t>(inv_freq_.view().cols),
            .pairing = pairing_,
            .head_dim = shape_.head_dim,
            .magnitude = rope_magnitude_};
  }

  void embed(const int32_t* token_ids, const TensorView& x) const override {
    backend().embed(*weights_.embedding, token_ids, x);
  }

  void run_layer(const StepPlan& plan, int32_t index, const TensorView& x, StepScratch& scratch,
                 const LayerRun& run) const override {
    const DecoderLayer& layer = weights_.layers[static_cast<size_t>(index)];
    const KvView cache = plan.view(index);
    backend().rms_norm(x, layer.attention_norm.view(), shape_.rms_eps, scratch.normed.rows(plan.rows));
    if (run.queries) project_queries(layer, plan, scratch);
    if (run.keys) write_keys(layer, plan, cache, scratch);
    if (run.outputs == 0) return;
    const TensorView carried = x.slice_rows(plan.rows - run.outputs, run.outputs);
    add_attention(layer, plan, cache, scratch, carried, run);
    add_feed_forward(layer, plan.phase, scratch, carried);
  }

  void logits(const TensorView& x, Phase phase, const TensorView& normed, const TensorView& logits) const override {
    backend().rms_norm(x, weights_.output_norm.view(), shape_.rms_eps, normed);
    backend().linear(normed, weights_.head(), /*accumulate=*/false, phase, logits);
  }

 private:
  // q = rope(head_norm(normed W + bias)).
  void project_queries(const DecoderLayer& layer, const StepPlan& plan, StepScratch& scratch) const {
    const TensorView q = scratch.q.rows(plan.rows);
    backend().linear(scratch.normed.rows(plan.rows), *layer.q, /*accumulate=*/false, plan.phase, q);
    if (layer.q_bias) backend().add_bias(q, layer.q_bias.view());
    if (layer.q_norm) norm_heads(q, layer.q_norm.view());
    backend().rope(q, plan.angles, rope());
  }

  // k = rope(head_norm(normed W + bias)) and v = normed W + bias, to the lanes.
  void write_keys(const DecoderLayer& layer, const StepPlan& plan, const KvView& cache, StepScratch& scratch) const {
    const TensorView normed = scratch.normed.rows(plan.rows);
    const TensorView k = scratch.k.rows(plan.rows), v = scratch.v.rows(plan.rows);
    backend().linear(normed, *layer.k, /*accumulate=*/false, plan.phase, k);
    backend().linear(normed, *layer.v, /*accumulate=*/false, plan.phase, v);
    if (layer.k_bias) backend().add_bias(k, layer.k_bias.view());
    if (layer.v_bias) backend().add_bias(v, layer.v_bias.view());
    if (layer.k_norm) norm_heads(k, layer.k_norm.view());
    backend().rope(k, plan.angles, rope());
    backend().write_kv(k, v, plan.positions, cache, plan.spans, shape_.kv_heads);
  }

  // Every head of x [R, heads * d] by itself, in place. gain [1, d].
  void norm_heads(const TensorView& x, const TensorView& gain) const {
    PKV_CHECK(x.row_stride == x.cols, "heads lie one behind the other in scratch tensors");
    const TensorView heads{x.data, x.dtype, x.rows * (x.cols / gain.cols), gain.cols, gain.cols};
    backend().rms_norm(heads, gain, shape_.rms_eps, heads);
  }

  // x += attention(q, cache) W, for the step's last rows, which are those of x.
  void add_attention(const DecoderLayer& layer, const StepPlan& plan, const KvView& cache, StepScratch& scratch,
                     const TensorView& x, const LayerRun& run) const {
    const auto outputs = static_cast<int32_t>(x.rows);
    const int32_t skipped = plan.rows - outputs;
    const TensorView attention = scratch.attention.rows(outputs);
    backend().attend({.q = scratch.q.view().slice_rows(skipped, outputs),
                      .out = attention,
                      .lse = run.lse ? scratch.lse.rows(outputs) : TensorView{},
                      .kv = cache,
                      .spans = plan.spans,
                      .skipped_rows = skipped,
                      .q_heads = shape_.q_heads,
                      .kv_heads = shape_.kv_heads,
                      .scale = 1.0f / std::sqrt(static_cast<float>(shape_.head_dim)),
                      .phase = plan.phase,
                      .sparse = run.pattern});
    backend().linear(attention, *layer.attention_output, /*accumulate=*/true, plan.phase, x);
  }

  // x += (silu(norm(x) Wgate) * (norm(x) Wup)) Wdown.
  void add_feed_forward(const DecoderLayer& layer, Phase phase, StepScratch& scratch, const TensorView& x) const {
    const auto rows = static_cast<int32_t>(x.rows);
    const TensorView normed = scratch.normed.rows(rows), gate = scratch.gate.rows(rows), up = scratch.up.rows(rows);
    backend().rms_norm(x, layer.feed_forward_norm.view(), shape_.rms_eps, normed);
    backend().linear(normed, *layer.gate, /*accumulate=*/false, phase, gate);
    backend().linear(normed, *layer.up, /*accumulate=*/false, phase, up);
    backend().silu_mul(gate, up);
    backend().linear(gate, *layer.down, /*accumulate=*/true, phase, x);
  }

  ModelShape shape_;
  RopePairing pairing_;
  Tensor inv_freq_;  // [1, pairs]
  float rope_magnitude_;
  DecoderWeights weights_;
  size_t weight_bytes_;
};

}  // namespace

void load_qkv_biases(WeightLoader& loader, const ModelShape& shape, const std::string& prefix, bool optional,
                     DecoderLayer& layer) {
  const auto bias = [&](const char* name, int32_t heads) {
    const int64_t width = int64_t{heads} * shape.head_dim;
    return optional ? loader.optional_vector(prefix + name, width) : loader.vector(prefix + name, width);
  };
  layer.q_bias = bias("attn_q.bias", shape.q_heads);
  layer.k_bias = bias("attn_k.bias", shape.kv_heads);
  layer.v_bias = bias("attn_v.bias", shape.kv_heads);
}

absl::StatusOr<std::unique_ptr<Model>> load_decoder(const DecoderArchitecture& architecture, const GgufFile& file,
                                                    Backend& backend, const Loading& loading) {
  PKV_ASSIGN_OR_RETURN(ModelShape shape, read_shape(file, std::string(architecture.name)));
  PKV_RETURN_IF_ERROR(check_attention(shape, backend));
  PKV_ASSIGN_OR_RETURN(const RopeParameters rope, read_rope(file, shape));
  WeightLoader loader(file, backend, loading);
  DecoderWeights weights = load_weights(architecture, loader, file, shape);
  PKV_RETURN_IF_ERROR(loader.finish());
  shape.weights = loader.most_frequent_format();
  PKV_ASSIGN_OR_RETURN(Tensor inv_freq, backend.allocate(1, static_cast<int64_t>(rope.inv_freq.size()), DType::kF32));
  backend.upload(inv_freq.view(), rope.inv_freq.data());
  return std::make_unique<DecoderModel>(backend, std::move(shape), architecture.pairing, std::move(inv_freq),
                                        rope.magnitude, std::move(weights), loader.bytes());
}

}  // namespace pkv
