// Writes GGUF files for tests: any keys and tensors, well-formed or not, and a complete tiny model of every
// architecture with a byte-level BPE vocabulary.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/quant.h"

namespace pkv::test {

// A file in the machine's folder for temporary files, removed at the end of the scope.
class TempFile {
 public:
  explicit TempFile(std::string_view content);
  ~TempFile();
  TempFile(TempFile&& other) noexcept : path_(std::move(other.path_)) { other.path_.clear(); }
  TempFile& operator=(TempFile&&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// Type numbers of values in a GGUF file.
enum GgufValueType : uint32_t { kU8, kI8, kU16, kI16, kU32, kI32, kF32, kBool, kString, kArray, kU64, kI64, kF64 };

// The bytes of a number and of a string (its length in front), as the file has them.
template <typename T>
std::string raw(T number) {
  return std::string(reinterpret_cast<const char*>(&number), sizeof(T));
}
std::string raw_string(std::string_view text);

class GgufWriter {
 public:
  struct Tensor {
    std::string name;
    std::vector<int64_t> dims;  // fastest first
    uint32_t ggml_id = 0;
    std::string data;
    std::optional<uint64_t> offset;  // what the file says; by default where the data is
  };

  // A key that is there already is replaced.
  GgufWriter& set(const std::string& key, uint32_t value) { return set_raw(key, kU32, raw(value)); }
  GgufWriter& set(const std::string& key, int32_t value) { return set_raw(key, kI32, raw(value)); }
  GgufWriter& set(const std::string& key, float value) { return set_raw(key, kF32, raw(value)); }
  GgufWriter& set(const std::string& key, bool value) { return set_raw(key, kBool, raw(uint8_t{value})); }
  GgufWriter& set(const std::string& key, const std::string& value) { return set_raw(key, kString, raw_string(value)); }
  GgufWriter& set(const std::string& key, const char* value) { return set(key, std::string(value)); }
  GgufWriter& set(const std::string& key, const std::vector<std::string>& values);
  GgufWriter& set(const std::string& key, const std::vector<int32_t>& values);
  GgufWriter& set(const std::string& key, const std::vector<float>& values);
  GgufWriter& set_raw(const std::string& key, uint32_t type, const std::string& value);
  // Adds a key even if it is there already.
  GgufWriter& add_raw(const std::string& key, uint32_t type, const std::string& value);
  GgufWriter& remove(const std::string& key);

  GgufWriter& add_tensor(const std::string& name, const std::vector<int64_t>& dims, WeightType type, std::string data);
  GgufWriter& add_tensor(const std::string& name, const std::vector<float>& values);  // a float32 vector
  GgufWriter& remove_tensor(const std::string& name);
  Tensor& tensor(const std::string& name);  // must be there

  uint32_t version = 3;
  uint32_t alignment = 32;  // of the tensor data; the key general.alignment is set by hand

  // The whole file, and how many of its bytes, at the end, are tensor data.
  std::string bytes() const;
  size_t data_bytes() const;
  TempFile write() const { return TempFile(bytes()); }

 private:
  struct Key {
    std::string name;
    uint32_t type;
    std::string value;
  };
  std::vector<Key> keys_;
  std::vector<Tensor> tensors_;
};

// `count` random weights of about standard deviation `scale`, in the file's format. Deterministic for a given `rng`.
std::string random_weights(WeightType type, int64_t count, float scale, std::mt19937& rng);

struct TinyModelOptions {
  int32_t layers = 2;
  int32_t q_heads = 4;
  int32_t kv_heads = 2;
  int32_t head_dim = 16;
  int32_t width = 64;  // rows are whole blocks of weight_type: multiples of 32, for K-quants of 256
  int32_t feed_forward = 96;
  int32_t vocab = 320;  // at least 259: three control tokens and the bytes; the rest are merged pairs of letters
  int32_t context = 1024;
  uint32_t seed = 1;
  WeightType weight_type = WeightType::kF32;
  bool own_head = false;  // an output head of its own instead of the embedding
  bool biases = false;    // llama: on q, k and v, where qwen2 always has them
};

// Control tokens of the tiny models: <|endoftext|> 0, <|im_start|> 1, <|im_end|> 2 (end of text). Its other tokens are
// the 256 bytes and, from kTinyFirstMerge on, merged pairs of letters. The chat template is ChatML with a default
// system message.
inline constexpr int32_t kTinyEndToken = 2;
inline constexpr int32_t kTinyFirstByte = 3;
inline constexpr int32_t kTinyFirstMerge = 259;

// The models as keys and tensors, to be changed by a test before they are written.
GgufWriter tiny_llama(const TinyModelOptions& options = {});
GgufWriter tiny_qwen2(const TinyModelOptions& options = {});
GgufWriter tiny_qwen3(const TinyModelOptions& options = {});
inline TempFile make_tiny_llama(const TinyModelOptions& options = {}) { return tiny_llama(options).write(); }

}  // namespace pkv::test
