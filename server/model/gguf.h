// Reads GGUF v2 and v3 files: memory-mapped, every field checked against the file's size before it is used. A
// truncated, lying or foreign file gives INVALID_ARGUMENT naming the tensor or key; a file that cannot be opened gives
// NOT_FOUND or PERMISSION_DENIED.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/backend.h"

namespace pkv {

using GgufArray = std::variant<std::vector<int64_t>, std::vector<double>, std::vector<bool>, std::vector<std::string>>;
using GgufValue = std::variant<int64_t, uint64_t, double, bool, std::string, GgufArray>;

struct GgufTensor {
  std::string name;
  WeightType type = WeightType::kF32;
  std::vector<int64_t> dims;        // fastest first, as the file has them: [inputs, outputs] of a matrix
  std::span<const std::byte> data;  // into the mapping

  // This matrix (or vector, as one row) for Backend::prepare_weight.
  WeightSource source() const;
};

class GgufFile {
 public:
  static absl::StatusOr<std::unique_ptr<GgufFile>> open(const std::string& path);
  ~GgufFile();
  GgufFile(const GgufFile&) = delete;
  GgufFile& operator=(const GgufFile&) = delete;

  const std::string& path() const { return path_; }
  size_t file_bytes() const { return mapping_.size(); }
  bool has(std::string_view key) const { return find(key) != nullptr; }
  const GgufValue* find(std::string_view key) const;

  // INVALID_ARGUMENT naming the key where it is absent, of another type, or out of range. The forms with a fallback
  // accept an absent key, not a wrong one.
  absl::StatusOr<uint32_t> u32(std::string_view key) const;
  absl::StatusOr<uint32_t> u32_or(std::string_view key, uint32_t fallback) const;
  absl::StatusOr<double> number_or(std::string_view key, double fallback) const;
  absl::StatusOr<double> number(std::string_view key) const;
  absl::StatusOr<bool> boolean_or(std::string_view key, bool fallback) const;
  absl::StatusOr<std::string> string(std::string_view key) const;
  absl::StatusOr<std::string> string_or(std::string_view key, std::string fallback) const;
  absl::StatusOr<std::vector<std::string>> strings(std::string_view key) const;
  absl::StatusOr<std::vector<int64_t>> integers(std::string_view key) const;
  absl::StatusOr<std::vector<float>> floats(std::string_view key) const;

  const std::vector<GgufTensor>& tensors() const { return tensors_; }
  // INVALID_ARGUMENT naming the tensor where it is absent or its dims differ from `dims` (fastest first).
  absl::StatusOr<const GgufTensor*> tensor(std::string_view name, std::span<const int64_t> dims) const;
  const GgufTensor* find_tensor(std::string_view name) const;

 private:
  GgufFile() = default;
  std::string path_;
  std::span<const std::byte> mapping_;
  std::map<std::string, GgufValue, std::less<>> values_;
  std::vector<GgufTensor> tensors_;
  std::map<std::string, size_t, std::less<>> tensor_index_;
};

}  // namespace pkv
