// pkv-synthetic-model SHAPE FILE: a GGUF file with a known model's shape and random weights, in Q4_0, for measuring
// speed where the model itself cannot be had: llama-3.2-1b, llama-3-8b; tiny, to try it. There is no tokenizer in it.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "tests/support/gguf_writer.h"

namespace pkv {
namespace {

struct Shape {
  std::string_view name;
  int32_t layers, q_heads, kv_heads, head_dim, width, feed_forward, vocabulary;
  bool own_head;
};
constexpr Shape kShapes[] = {
    {"llama-3.2-1b", 16, 32, 8, 64, 2048, 8192, 128256, false},
    {"llama-3-8b", 32, 32, 8, 128, 4096, 14336, 128256, true},
    {"tiny", 2, 4, 2, 16, 64, 96, 512, false},
};
constexpr uint32_t kContext = 132 << 10;  // a prompt of 128k tokens and an answer
constexpr WeightType kType = WeightType::kQ4_0;

// What the file says of its tensors; their data are written one after another, none of them in memory as a whole.
class SyntheticFile {
 public:
  explicit SyntheticFile(const Shape& shape) : shape_(shape) {
    header_.set("general.architecture", "llama")
        .set("general.alignment", uint32_t{kAlignment})
        .set("llama.block_count", number(shape.layers))
        .set("llama.context_length", kContext)
        .set("llama.embedding_length", number(shape.width))
        .set("llama.feed_forward_length", number(shape.feed_forward))
        .set("llama.attention.head_count", number(shape.q_heads))
        .set("llama.attention.head_count_kv", number(shape.kv_heads))
        .set("llama.attention.key_length", number(shape.head_dim))
        .set("llama.attention.value_length", number(shape.head_dim))
        .set("llama.attention.layer_norm_rms_epsilon", 1e-5f)
        .set("llama.rope.freq_base", 5e5f)
        .set("llama.rope.dimension_count", number(shape.head_dim));
    const int64_t d = shape.width, q = int64_t{shape.q_heads} * shape.head_dim,
                  kv = int64_t{shape.kv_heads} * shape.head_dim, f = shape.feed_forward;
    matrix("token_embd.weight", d, shape.vocabulary);
    for (int32_t layer = 0; layer < shape.layers; ++layer) {
      const std::string prefix = "blk." + std::to_string(layer) + ".";
      norm(prefix + "attn_norm.weight");
      matrix(prefix + "attn_q.weight", d, q);
      matrix(prefix + "attn_k.weight", d, kv);
      matrix(prefix + "attn_v.weight", d, kv);
      matrix(prefix + "attn_output.weight", q, d);
      norm(prefix + "ffn_norm.weight");
      matrix(prefix + "ffn_gate.weight", d, f);
      matrix(prefix + "ffn_up.weight", d, f);
      matrix(prefix + "ffn_down.weight", f, d);
    }
    norm("output_norm.weight");
    if (shape.own_head) matrix("output.weight", d, shape.vocabulary);
  }

  bool write(const char* path) const {
    std::ofstream file(path, std::ios::binary);
    std::string header = header_.bytes();
    header.resize(padded(header.size()));
    file.write(header.data(), static_cast<std::streamsize>(header.size()));
    std::mt19937 rng(1);
    // Some blocks again and again: what they hold is nothing to the speed.
    const std::string blocks =
        test::random_weights(kType, int64_t{1} << 20, 1 / std::sqrt(static_cast<float>(shape_.width)), rng);
    const std::vector<float> ones(static_cast<size_t>(shape_.width), 1.0f);
    for (const Part& part : parts_) {
      if (part.is_norm) {
        file.write(reinterpret_cast<const char*>(ones.data()), static_cast<std::streamsize>(part.bytes));
      } else {
        for (size_t done = 0; done < part.bytes; done += std::min(blocks.size(), part.bytes - done)) {
          file.write(blocks.data(), static_cast<std::streamsize>(std::min(blocks.size(), part.bytes - done)));
        }
      }
      file.write(std::string(padded(part.bytes) - part.bytes, '\0').data(),
                 static_cast<std::streamsize>(padded(part.bytes) - part.bytes));
    }
    return static_cast<bool>(file.flush());
  }

 private:
  static constexpr size_t kAlignment = 32;
  struct Part {
    size_t bytes = 0;
    bool is_norm = false;
  };
  static uint32_t number(int32_t value) { return static_cast<uint32_t>(value); }
  static size_t padded(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

  void matrix(const std::string& name, int64_t inputs, int64_t outputs) {
    const QuantTraits& traits = quant_traits(kType);
    add(name, {inputs, outputs}, kType,
        {.bytes = static_cast<size_t>(inputs * outputs / traits.block_size * traits.block_bytes)});
  }
  void norm(const std::string& name) {
    add(name, {shape_.width}, WeightType::kF32,
        {.bytes = sizeof(float) * static_cast<size_t>(shape_.width), .is_norm = true});
  }
  void add(const std::string& name, const std::vector<int64_t>& dims, WeightType type, const Part& part) {
    header_.add_tensor(name, dims, type, "").tensor(name).offset = end_;
    end_ += padded(part.bytes);
    parts_.push_back(part);
  }

  const Shape& shape_;
  test::GgufWriter header_;
  std::vector<Part> parts_;
  uint64_t end_ = 0;
};

}  // namespace
}  // namespace pkv

int main(int count, char** arguments) {
  for (const pkv::Shape& shape : pkv::kShapes) {
    if (count != 3 || arguments[1] != shape.name) continue;
    if (pkv::SyntheticFile(shape).write(arguments[2])) return 0;
    std::fprintf(stderr, "cannot write %s\n", arguments[2]);
    return 1;
  }
  std::fprintf(stderr, "usage: %s llama-3.2-1b|llama-3-8b|tiny FILE\n", arguments[0]);
  return 2;
}
