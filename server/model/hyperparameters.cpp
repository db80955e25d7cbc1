// Reads and checks the hyperparameters of the llama family.
#include "server/model/hyperparameters.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <string_view>

#include "absl/status/status.h"
#include "kernels/quant.h"
#include "kernels/status_macros.h"
#include "server/model/errors.h"

namespace pkv {
namespace {

// Far above any model there is, and low enough that every product of two of them fits 64 bits and heads * head_dim
// fits 32.
constexpr int32_t kMaxLayers = 4096;
constexpr int32_t kMaxHeads = 4096;
constexpr int32_t kMaxHeadDim = 4096;
constexpr int32_t kMaxWidth = 1 << 20;
constexpr int32_t kMaxPositions = 1 << 24;  // float32 holds every position up to here

// Reads keys of one architecture and keeps the first error, so that the list of what is read stays a list.
class KeyReader {
 public:
  KeyReader(const GgufFile& file, const std::string& architecture) : file_(file), prefix_(architecture + ".") {}

  std::string name(std::string_view key) const { return prefix_ + std::string(key); }
  bool has(std::string_view key) const { return file_.has(name(key)); }
  const absl::Status& status() const { return status_; }
  void fail(absl::Status status) {
    if (status_.ok()) status_ = std::move(status);
  }

  // An integer in [lowest, largest]; an absent key is an error where there is no fallback.
  int32_t integer(std::string_view key, int32_t lowest, int32_t largest, std::optional<int32_t> fallback = {}) {
    if (fallback && !has(key)) return *fallback;
    const absl::StatusOr<uint32_t> value = file_.u32(name(key));
    if (!value.ok()) {
      fail(value.status());
      return lowest;
    }
    if (*value < static_cast<uint32_t>(lowest) || *value > static_cast<uint32_t>(largest)) {
      fail(invalid_argument("key '", name(key), "': ", *value, " is not between ", lowest, " and ", largest));
      return lowest;
    }
    return static_cast<int32_t>(*value);
  }

  // A positive finite number.
  double positive(std::string_view key, std::optional<double> fallback = {}) {
    if (fallback && !has(key)) return *fallback;
    const absl::StatusOr<double> value = file_.number(name(key));
    if (!value.ok()) {
      fail(value.status());
      return 1;
    }
    if (!std::isfinite(*value) || *value <= 0) {
      fail(invalid_argument("key '", name(key), "': ", *value, " is not a positive number"));
      return 1;
    }
    return *value;
  }

 private:
  const GgufFile& file_;
  std::string prefix_;
  absl::Status status_;
};

// The embedding has a row per token, the tokenizer a text per token.
absl::StatusOr<int32_t> read_vocab_size(const GgufFile& file, const KeyReader& keys) {
  const GgufTensor* embedding = file.find_tensor("token_embd.weight");
  if (embedding == nullptr) return invalid_argument("tensor 'token_embd.weight' is missing");
  if (embedding->dims.size() != 2 || embedding->dims[1] > std::numeric_limits<int32_t>::max()) {
    return invalid_argument("tensor 'token_embd.weight': it is not a matrix with a row per token");
  }
  const int64_t vocab_size = embedding->dims[1];
  PKV_ASSIGN_OR_RETURN(const uint32_t declared,
                       file.u32_or(keys.name("vocab_size"), static_cast<uint32_t>(vocab_size)));
  if (declared != vocab_size) {
    return invalid_argument("key '", keys.name("vocab_size"), "': ", declared, ", but tensor 'token_embd.weight' has ",
                            vocab_size, " rows");
  }
  if (file.has("tokenizer.ggml.tokens")) {
    PKV_ASSIGN_OR_RETURN(const std::vector<std::string> tokens, file.strings("tokenizer.ggml.tokens"));
    if (static_cast<int64_t>(tokens.size()) != vocab_size) {
      return invalid_argument("key 'tokenizer.ggml.tokens': ", tokens.size(),
                              " tokens, but tensor 'token_embd.weight' has ", vocab_size, " rows");
    }
  }
  return static_cast<int32_t>(vocab_size);
}

// Without the key a head has its share of the width.
int32_t read_head_dim(KeyReader& keys, const ModelShape& shape) {
  if (!keys.has("attention.key_length") && shape.width % shape.q_heads != 0) {
    keys.fail(invalid_argument("key '", keys.name("attention.head_count"), "': ", shape.q_heads,
                               " heads do not divide the width ", shape.width));
    return 1;
  }
  const int32_t head_dim = keys.integer("attention.key_length", 2, kMaxHeadDim, shape.width / shape.q_heads);
  const int32_t value_length = keys.integer("attention.value_length", 1, kMaxHeadDim, head_dim);
  if (value_length != head_dim) {
    keys.fail(unimplemented("key '", keys.name("attention.value_length"), "': values of ", value_length,
                            " elements with keys of ", head_dim, " are not supported"));
  }
  return head_dim;
}

// Divides the frequencies by the Llama 3.1 factors the file has for them.
absl::Status apply_frequency_factors(const GgufTensor& tensor, std::vector<double>& frequencies) {
  const QuantTraits& traits = quant_traits(tensor.type);
  if (tensor.dims != std::vector<int64_t>{static_cast<int64_t>(frequencies.size())}) {
    return invalid_argument("tensor '", tensor.name, "': it does not have ", frequencies.size(),
                            " elements, one for each pair of rotated dimensions");
  }
  std::vector<float> factors(frequencies.size());
  traits.decode(tensor.data.data(), factors.data(), tensor.dims[0]);
  for (size_t i = 0; i < factors.size(); ++i) {
    if (!std::isfinite(factors[i]) || factors[i] <= 0) {
      return invalid_argument("tensor '", tensor.name, "': element ", i, " is ", factors[i], ", not a positive number");
    }
    frequencies[i] /= factors[i];
  }
  return absl::OkStatus();
}

// The factor that linear scaling stretches positions by; 1 where the file has none.
double read_linear_scaling(const GgufFile& file, KeyReader& keys) {
  constexpr std::string_view kFactorKeys[] = {"rope.scaling.factor", "rope.scale_linear"};  // the second before 2023-10
  const absl::StatusOr<std::string> type = file.string_or(keys.name("rope.scaling.type"), "linear");
  if (!type.ok()) {
    keys.fail(type.status());
    return 1;
  }
  if (*type == "none") return 1;
  if (*type != "linear") {
    keys.fail(unimplemented("key '", keys.name("rope.scaling.type"), "': '", *type,
                            "' is not supported; none, linear and the factors of Llama 3.1 are"));
    return 1;
  }
  for (std::string_view key : kFactorKeys) {
    if (keys.has(key)) return keys.positive(key);
  }
  return 1;
}

}  // namespace

absl::StatusOr<ModelShape> read_shape(const GgufFile& file, const std::string& architecture) {
  KeyReader keys(file, architecture);
  if (keys.integer("expert_count", 0, std::numeric_limits<int32_t>::max(), 0) != 0) {
    return unimplemented("key '", keys.name("expert_count"), "': a mixture of experts is not supported");
  }
  ModelShape shape;
  shape.architecture = architecture;
  shape.layers = keys.integer("block_count", 1, kMaxLayers);
  shape.width = keys.integer("embedding_length", 1, kMaxWidth);
  shape.feed_forward = keys.integer("feed_forward_length", 1, kMaxWidth);
  shape.q_heads = keys.integer("attention.head_count", 1, kMaxHeads);
  shape.kv_heads = keys.integer("attention.head_count_kv", 1, kMaxHeads, shape.q_heads);
  shape.rms_eps = static_cast<float>(keys.positive("attention.layer_norm_rms_epsilon"));
  const int32_t context_length = keys.integer("context_length", 1, kMaxPositions);
  const int32_t window =
      keys.integer("attention.sliding_window", 0, std::numeric_limits<int32_t>::max(), 0);  // 0: no window
  shape.max_positions = window > 0 ? std::min(window, context_length) : context_length;
  if (!keys.status().ok()) return keys.status();

  shape.head_dim = read_head_dim(keys, shape);
  if (shape.q_heads % shape.kv_heads != 0) {
    keys.fail(invalid_argument("key '", keys.name("attention.head_count_kv"), "': ", shape.kv_heads,
                               " key/value heads do not divide the ", shape.q_heads, " query heads"));
  }
  if (!keys.status().ok()) return keys.status();
  PKV_ASSIGN_OR_RETURN(shape.vocab_size, read_vocab_size(file, keys));
  return shape;
}

absl::Status check_attention(const ModelShape& shape, const Backend& backend) {
  const absl::Status status =
      backend.supports({.q_heads = shape.q_heads, .kv_heads = shape.kv_heads, .head_dim = shape.head_dim});
  if (status.ok()) return status;
  const std::string keys = shape.architecture + ".attention.";
  return unimplemented("keys '", keys, "head_count' (", shape.q_heads, "), '", keys, "head_count_kv' (", shape.kv_heads,
                       "), '", keys, "key_length' (", shape.head_dim, "): the ", backend.name(),
                       " device does not support this model: ", std::string(status.message()),
                       "; runtime.device=reference may, slowly");
}

absl::StatusOr<RopeParameters> read_rope(const GgufFile& file, const ModelShape& shape) {
  KeyReader keys(file, shape.architecture);
  const int32_t rotary_dims = keys.integer("rope.dimension_count", 2, shape.head_dim, shape.head_dim);
  if (rotary_dims % 2 != 0) {
    keys.fail(invalid_argument("key '", keys.name("rope.dimension_count"), "': ", rotary_dims, " is odd"));
  }
  const double base = keys.positive("rope.freq_base", 10000.0);
  const double stretch = read_linear_scaling(file, keys);
  RopeParameters rope;
  rope.magnitude = static_cast<float>(keys.positive("rope.scaling.attn_factor", 1.0));
  if (!keys.status().ok()) return keys.status();

  std::vector<double> frequencies(static_cast<size_t>(rotary_dims / 2));
  for (size_t i = 0; i < frequencies.size(); ++i) {
    frequencies[i] = std::pow(base, -2.0 * static_cast<double>(i) / rotary_dims) / stretch;
  }
  if (const GgufTensor* factors = file.find_tensor("rope_freqs.weight")) {
    PKV_RETURN_IF_ERROR(apply_frequency_factors(*factors, frequencies));
  }
  rope.inv_freq.assign(frequencies.begin(), frequencies.end());
  return rope;
}

}  // namespace pkv
