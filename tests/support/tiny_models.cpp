// Complete models of a few hundred kilobytes with random weights, for tests that need one.
#include <array>
#include <cmath>
#include <cstring>

#include "kernels/check.h"
#include "tests/support/gguf_writer.h"

namespace pkv::test {
namespace {

// Blocks of random bytes, except for the half-precision scale, and minimum where the format has one: w = scale * q +
// minimum or w = scale * q - minimum * m. The factors bring the weights near standard deviation 1.
struct RandomBlock {
  WeightType type;
  int32_t scale_offset;
  float scale;
  int32_t minimum_offset;  // -1: none
  float minimum;
};
constexpr RandomBlock kRandomBlocks[] = {
    {WeightType::kQ4_0, 0, 1 / 4.6f, -1, 0},          {WeightType::kQ4_1, 0, 1 / 4.6f, 2, -7.5f / 4.6f},
    {WeightType::kQ5_0, 0, 1 / 9.2f, -1, 0},          {WeightType::kQ5_1, 0, 1 / 9.2f, 2, -15.5f / 9.2f},
    {WeightType::kQ8_0, 0, 1 / 74.0f, -1, 0},         {WeightType::kQ4_K, 0, 1 / 180.0f, 2, 1 / 24.0f},
    {WeightType::kQ5_K, 0, 1 / 360.0f, 2, 1 / 24.0f}, {WeightType::kQ6_K, 208, 1 / 1370.0f, -1, 0},
};

// std::normal_distribution differs between standard libraries, so a sum of uniform numbers stands in for it.
float random_normal(std::mt19937& rng) {
  double sum = -6;
  for (int i = 0; i < 12; ++i) sum += static_cast<double>(rng()) / 4294967296.0;
  return static_cast<float>(sum);
}

void put_half(char* at, float value) {
  const uint16_t half = float_to_half(value);
  std::memcpy(at, &half, sizeof(half));
}

// The 256 bytes as GPT-2's vocabulary writes them: printable ones as they are, the others as characters from U+0100 on.
std::array<std::string, 256> byte_tokens() {
  std::array<std::string, 256> tokens;
  uint32_t next = 0x100;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    const uint32_t code = printable ? byte : next++;
    if (code < 0x80) {
      tokens[byte] = {static_cast<char>(code)};
    } else {
      tokens[byte] = {static_cast<char>(0xc0 | code >> 6), static_cast<char>(0x80 | (code & 0x3f))};
    }
  }
  return tokens;
}

void add_vocabulary(GgufWriter& file, const TinyModelOptions& options, const char* pre_tokenizer) {
  constexpr int32_t kNormal = 1, kControl = 3;
  constexpr int32_t kLetters = 26;
  const int32_t merged = options.vocab - kTinyFirstMerge;
  PKV_CHECK(merged >= 0 && merged <= kLetters * kLetters, "a vocabulary of 259 to 935 tokens");
  std::vector<std::string> tokens = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"}, merges;
  std::vector<int32_t> types = {kControl, kControl, kControl};
  for (const std::string& token : byte_tokens()) tokens.push_back(token);
  for (int32_t i = 0; i < merged; ++i) {
    const std::string first(1, static_cast<char>('a' + i / kLetters)), second(1, static_cast<char>('a' + i % kLetters));
    tokens.push_back(first + second);
    merges.push_back(first + " " + second);
  }
  types.resize(tokens.size(), kNormal);
  file.set("tokenizer.ggml.model", "gpt2")
      .set("tokenizer.ggml.pre", pre_tokenizer)
      .set("tokenizer.ggml.tokens", tokens)
      .set("tokenizer.ggml.token_type", types)
      .set("tokenizer.ggml.merges", merges)
      .set("tokenizer.ggml.bos_token_id", uint32_t{1})
      .set("tokenizer.ggml.eos_token_id", uint32_t{kTinyEndToken})
      .set("tokenizer.ggml.add_bos_token", false)
      .set("tokenizer.ggml.add_space_prefix", false)
      .set("tokenizer.chat_template",
           "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ "
           "'<|im_start|>system\nYou "
           "are a tiny test model<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + "
           "message['content'] + "
           "'<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}");
}

// Adds tensors with values from one generator, in the order of the calls.
class RandomTensors {
 public:
  RandomTensors(GgufWriter& file, WeightType type, uint32_t seed) : file_(file), type_(type), rng_(seed) {}

  // Of standard deviation gain / sqrt(inputs), which keeps activations of standard deviation 1 at about `gain`.
  void matrix(const std::string& name, int64_t inputs, int64_t outputs, float gain) {
    const float scale = gain / std::sqrt(static_cast<float>(inputs));
    file_.add_tensor(name, {inputs, outputs}, type_, random_weights(type_, inputs * outputs, scale, rng_));
  }
  void vector(const std::string& name, int64_t size, float mean, float deviation) {
    std::vector<float> values(static_cast<size_t>(size));
    for (float& value : values) value = mean + deviation * random_normal(rng_);
    file_.add_tensor(name, values);
  }

 private:
  GgufWriter& file_;
  WeightType type_;
  std::mt19937 rng_;
};

struct TinyArchitecture {
  std::string name;
  const char* pre_tokenizer;
  float rope_base;
  bool biases = false;      // on q, k and v
  bool head_norms = false;  // of q and k
};

void add_layer(RandomTensors& tensors, const TinyArchitecture& architecture, const TinyModelOptions& o, int32_t index) {
  const std::string prefix = "blk." + std::to_string(index) + ".";
  const int64_t q_width = int64_t{o.q_heads} * o.head_dim, kv_width = int64_t{o.kv_heads} * o.head_dim;
  tensors.vector(prefix + "attn_norm.weight", o.width, 1.0f, 0.1f);
  // Larger queries and keys, so that attention is far from uniform.
  tensors.matrix(prefix + "attn_q.weight", o.width, q_width, 1.5f);
  tensors.matrix(prefix + "attn_k.weight", o.width, kv_width, 1.5f);
  tensors.matrix(prefix + "attn_v.weight", o.width, kv_width, 1.0f);
  if (architecture.biases) {
    tensors.vector(prefix + "attn_q.bias", q_width, 0.0f, 0.5f);
    tensors.vector(prefix + "attn_k.bias", kv_width, 0.0f, 0.5f);
    tensors.vector(prefix + "attn_v.bias", kv_width, 0.0f, 0.5f);
  }
  if (architecture.head_norms) {
    tensors.vector(prefix + "attn_q_norm.weight", o.head_dim, 1.5f, 0.3f);
    tensors.vector(prefix + "attn_k_norm.weight", o.head_dim, 1.5f, 0.3f);
  }
  tensors.matrix(prefix + "attn_output.weight", q_width, o.width, 1.0f);
  tensors.vector(prefix + "ffn_norm.weight", o.width, 1.0f, 0.1f);
  tensors.matrix(prefix + "ffn_gate.weight", o.width, o.feed_forward, 1.0f);
  tensors.matrix(prefix + "ffn_up.weight", o.width, o.feed_forward, 1.0f);
  tensors.matrix(prefix + "ffn_down.weight", o.feed_forward, o.width, 1.0f);
}

GgufWriter tiny_model(const TinyArchitecture& architecture, const TinyModelOptions& options) {
  GgufWriter file;
  const std::string keys = architecture.name + ".";
  file.set("general.architecture", architecture.name)
      .set("general.name", "tiny " + architecture.name)
      .set(keys + "block_count", static_cast<uint32_t>(options.layers))
      .set(keys + "context_length", static_cast<uint32_t>(options.context))
      .set(keys + "embedding_length", static_cast<uint32_t>(options.width))
      .set(keys + "feed_forward_length", static_cast<uint32_t>(options.feed_forward))
      .set(keys + "attention.head_count", static_cast<uint32_t>(options.q_heads))
      .set(keys + "attention.head_count_kv", static_cast<uint32_t>(options.kv_heads))
      .set(keys + "attention.key_length", static_cast<uint32_t>(options.head_dim))
      .set(keys + "attention.value_length", static_cast<uint32_t>(options.head_dim))
      .set(keys + "attention.layer_norm_rms_epsilon", 1e-5f)
      .set(keys + "rope.freq_base", architecture.rope_base)
      .set(keys + "rope.dimension_count", static_cast<uint32_t>(options.head_dim))
      .set(keys + "vocab_size", static_cast<uint32_t>(options.vocab));
  add_vocabulary(file, options, architecture.pre_tokenizer);
  RandomTensors tensors(file, options.weight_type, options.seed);
  // As an output head this gives logits of standard deviation 3.
  tensors.matrix("token_embd.weight", options.width, options.vocab, 3.0f);
  for (int32_t i = 0; i < options.layers; ++i) add_layer(tensors, architecture, options, i);
  tensors.vector("output_norm.weight", options.width, 1.0f, 0.1f);
  if (options.own_head) tensors.matrix("output.weight", options.width, options.vocab, 3.0f);
  return file;
}

}  // namespace

std::string random_weights(WeightType type, int64_t count, float scale, std::mt19937& rng) {
  const QuantTraits& traits = quant_traits(type);
  PKV_CHECK(count % traits.block_size == 0, "weights are not whole blocks");
  const int64_t blocks = count / traits.block_size;
  std::string data(static_cast<size_t>(blocks * traits.block_bytes), '\0');
  if (traits.block_size == 1) {
    for (int64_t i = 0; i < count; ++i) {
      const float value = scale * random_normal(rng);
      char* at = data.data() + i * traits.block_bytes;
      if (type == WeightType::kF16) {
        put_half(at, value);
      } else {  // bfloat16 is the upper half of a float32
        std::memcpy(at, reinterpret_cast<const char*>(&value) + (4 - traits.block_bytes), traits.block_bytes);
      }
    }
    return data;
  }
  for (char& byte : data) byte = static_cast<char>(rng());
  for (const RandomBlock& row : kRandomBlocks) {
    if (row.type != type) continue;
    for (int64_t i = 0; i < blocks; ++i) {
      char* block = data.data() + i * traits.block_bytes;
      const float spread = 0.75f + 0.5f * static_cast<float>(rng()) / 4294967296.0f;  // blocks differ in scale
      put_half(block + row.scale_offset, scale * spread * row.scale);
      if (row.minimum_offset >= 0) put_half(block + row.minimum_offset, scale * spread * row.minimum);
    }
    return data;
  }
  PKV_CHECK(false, "no random blocks of this format");
}

GgufWriter tiny_llama(const TinyModelOptions& options) {
  return tiny_model({.name = "llama", .pre_tokenizer = "smollm", .rope_base = 1e4f, .biases = options.biases}, options);
}

GgufWriter tiny_qwen2(const TinyModelOptions& options) {
  return tiny_model({.name = "qwen2", .pre_tokenizer = "qwen2", .rope_base = 1e6f, .biases = true}, options);
}

GgufWriter tiny_qwen3(const TinyModelOptions& options) {
  return tiny_model({.name = "qwen3", .pre_tokenizer = "qwen2", .rope_base = 1e6f, .head_norms = true}, options);
}

}  // namespace pkv::test
