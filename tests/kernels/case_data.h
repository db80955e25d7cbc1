// Inputs for operation cases: random tensors, strided views with guarded surroundings, random weight blocks and a paged
// cache with shuffled pages and unused slots full of NaN.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "tests/kernels/operation_cases.h"
#include "tests/support/backend_array.h"

namespace pkv {

using test::BackendArray;
using test::row_spans;

// A dense matrix on the host.
struct Matrix {
  int64_t rows = 0;
  int64_t cols = 0;
  std::vector<float> values;

  Matrix() = default;
  Matrix(int64_t row_count, int64_t col_count, float value = 0)
      : rows(row_count), cols(col_count), values(static_cast<size_t>(row_count * col_count), value) {}
  const float* row(int64_t r) const { return values.data() + r * cols; }
  float* row(int64_t r) { return values.data() + r * cols; }
};

// Normally distributed with the given standard deviation.
Matrix random_matrix(std::mt19937& rng, int64_t rows, int64_t cols, float deviation = 1.0f);

// How a tensor lies in memory: by itself, or as columns of a wider one, not aligned to anything but a float.
enum class Placement : uint8_t { kDense, kStrided };

// A tensor of a case on a backend. Where it is strided, the columns around it are guards that no operation may touch.
class CaseTensor {
 public:
  CaseTensor() = default;
  CaseTensor(Backend& backend, const Matrix& content, Placement placement);
  CaseTensor(Backend& backend, int64_t rows, int64_t cols, std::span<const int32_t> content);  // int32, dense

  const TensorView& view() const { return view_; }
  // The view's values as floats, the guards as exact bits.
  Output floats(Backend& backend, std::string name) const;
  // The view's int32 values.
  Output integers(Backend& backend, std::string name) const;

 private:
  Tensor tensor_;
  TensorView view_;
};

// Random blocks of a weight format. The decoded weights are around 0.05 in size.
std::vector<uint8_t> random_weight(std::mt19937& rng, WeightType type, int64_t rows, int64_t cols);

// Copies to and from a backend's memory of 4-byte elements.
void upload_words(Backend& backend, void* to, const void* from, size_t bytes);
void download_words(Backend& backend, void* to, const void* from, size_t bytes);

// One lane of a test cache, before a step.
struct CaseLane {
  int32_t filled = 0;  // slots holding random entries
  Lane lane;           // length, write_slot, visible, dtype; first_page is set by the cache
};

struct CacheSpec {
  int32_t head_dim = 64;
  int32_t page_bytes = 4096;
  std::vector<CaseLane> lanes;
};

// The content of a cache on the host, and page tables in shuffled order. Unused slots are NaN in every format.
struct CacheContent {
  CacheSpec spec;
  int32_t position_stride = 0;
  std::vector<std::byte> pool;
  std::vector<int32_t> positions;
  std::vector<int32_t> page_ids;
  std::vector<Lane> lanes;

  CacheContent(std::mt19937& rng, CacheSpec cache_spec);
  int32_t pages() const { return static_cast<int32_t>(pool.size() / static_cast<size_t>(spec.page_bytes)); }
  KvView view();  // of this host memory
  // Entries of slots [0, count) of a lane as float32: keys and values [count, d].
  Matrix keys(int32_t lane, int32_t count) const;
  Matrix values(int32_t lane, int32_t count) const;
};

// Slots [first_slot, end_slot) of a lane whose first `dims` dimensions of keys are compared as numbers.
struct TurnedKeys {
  int32_t first_slot = 0, end_slot = 0, dims = 0;
};

// The same in a backend's memory.
class CaseCache {
 public:
  CaseCache(Backend& backend, const CacheContent& content);
  KvView view() const;
  // Bits and positions of all slots of all pages.
  Outputs everything() const;
  // Bits and positions of slots [0, count) of one lane; of turned keys their numbers, as floats.
  Output entries(int32_t lane, int32_t count, const TurnedKeys& turned = {}) const;

 private:
  Backend& backend_;
  CacheContent host_;  // spec and sizes; the content as it was
  std::shared_ptr<std::byte> pool_, positions_, page_ids_, lanes_;
};

std::unique_ptr<PreparedCase> make_prepared(std::function<void()> run, std::function<Outputs()> outputs);

// A tolerance of `relative` of each value, and `absolute`.
std::vector<double> relative_tolerance(const std::vector<float>& values, double relative, double absolute);

// Of entries() with turned keys: the arithmetic is float32, and a number may be rounded to a neighbour.
std::vector<double> turned_tolerance(const Output& expected, KvDtype dtype);

// |a| . |b|, |a| and other sizes that tolerances are made of.
double absolute_dot(const float* a, const float* b, int64_t count);
double norm(const float* a, int64_t count);

}  // namespace pkv
