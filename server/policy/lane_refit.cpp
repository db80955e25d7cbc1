// Units of work in order: a row of P and r for every query, a row of the matrix for each of the smaller side, the
// solution, and the change of every entry's value.
#include "server/policy/lane_refit.h"

#include <algorithm>
#include <cmath>

#include "kernels/check.h"

namespace pkv {
namespace {

constexpr float kRidge = 0.1f;
constexpr size_t kSums = 16;  // partial sums, so that they need not wait for each other

float dot(const float* a, const float* b, int64_t count) {
  float sums[kSums] = {};
  int64_t i = 0;
  for (; i + static_cast<int64_t>(kSums) <= count; i += kSums) {
    for (size_t k = 0; k < kSums; ++k) sums[k] += a[i + static_cast<int64_t>(k)] * b[i + static_cast<int64_t>(k)];
  }
  float sum = 0;
  for (const float partial : sums) sum += partial;
  for (; i < count; ++i) sum += a[i] * b[i];
  return sum;
}

// to += factor * from
void add(float* to, float factor, const float* from, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] += factor * from[i];
}

size_t size_of(int64_t rows, int64_t cols) { return static_cast<size_t>(rows * cols); }

}  // namespace

LaneRefit::LaneRefit(const Input& input, std::vector<float> values)
    : input_(input),
      queries_(static_cast<int64_t>(input.unseen.size())),
      entries_(static_cast<int64_t>(values.size()) / input.head_dim),
      rank_(std::min(queries_, entries_)),
      values_(std::move(values)),
      attention_(size_of(queries_, entries_)),
      matrix_(size_of(rank_, rank_)),
      residual_(size_of(queries_, input.head_dim)) {
  PKV_CHECK(input.queries.size() == residual_.size() && input.outputs.size() == residual_.size() &&
                input.keys.size() == values_.size(),
            "a refit whose parts are of unlike sizes");
}

uint64_t LaneRefit::bytes(int64_t queries, int64_t entries, int32_t head_dim) {
  const int64_t rank = std::min(queries, entries);
  const int64_t transposed = entries < queries ? queries * entries : 0;
  return sizeof(float) * static_cast<uint64_t>(entries * head_dim + queries * entries + transposed + rank * rank +
                                               (queries + rank) * head_dim);
}

int64_t LaneRefit::work(int64_t queries, int64_t entries, int32_t head_dim) {
  const int64_t rank = std::min(queries, entries);
  return 3 * queries * entries * head_dim + rank * rank * std::max(queries, entries) / 2 + rank * rank * rank / 6 +
         rank * rank * head_dim;
}

void LaneRefit::run(int64_t most_work) {
  int64_t work = 0;
  do {
    work += run_unit();
  } while (!done() && work < most_work);
}

int64_t LaneRefit::run_unit() {
  const int64_t unit = next_++, d = input_.head_dim, longer = std::max(queries_, entries_);
  if (unit < queries_) {
    attend(unit);
    return 2 * entries_ * d;
  }
  const int64_t row = unit - queries_;
  if (row == 0 && entries_ < queries_) transpose();
  if (row < rank_) {
    multiply(row);
    return (row + 1) * longer;
  }
  if (row == rank_) {
    solve();
    return rank_ * rank_ * rank_ / 6 + rank_ * rank_ * d;
  }
  change(row - rank_ - 1);
  return queries_ * d;
}

void LaneRefit::attend(int64_t query) {
  const int64_t d = input_.head_dim, seen = entries_ - input_.unseen[static_cast<size_t>(query)];
  float* weights = attention_.data() + query * entries_;
  float* residual = residual_.data() + query * d;
  for (int64_t i = 0; i < d; ++i) residual[i] = -input_.outputs[static_cast<size_t>(query * d + i)];
  float highest = -INFINITY, sum = 0;
  for (int64_t j = 0; j < seen; ++j) {
    weights[j] = input_.scale * dot(input_.queries.data() + query * d, input_.keys.data() + j * d, d);
    highest = std::max(highest, weights[j]);
  }
  for (int64_t j = 0; j < seen; ++j) sum += weights[j] = std::exp(weights[j] - highest);
  for (int64_t j = 0; j < seen; ++j) {
    weights[j] /= sum;
    add(residual, weights[j], values_.data() + j * d, d);
  }
  trace_ += dot(weights, weights, seen);
}

void LaneRefit::transpose() {
  transposed_.resize(attention_.size());
  for (int64_t i = 0; i < queries_; ++i) {
    for (int64_t j = 0; j < entries_; ++j) {
      transposed_[static_cast<size_t>(j * queries_ + i)] = attention_[static_cast<size_t>(i * entries_ + j)];
    }
  }
}

void LaneRefit::multiply(int64_t row) {
  const std::vector<float>& rows = entries_ < queries_ ? transposed_ : attention_;
  const int64_t length = std::max(queries_, entries_);
  float* out = matrix_.data() + row * rank_;
  for (int64_t j = 0; j <= row; ++j) out[j] = dot(rows.data() + row * length, rows.data() + j * length, length);
  out[row] += kRidge * trace_ / static_cast<float>(queries_);
}

void LaneRefit::solve() {
  const int64_t d = input_.head_dim;
  solution_.assign(size_of(rank_, d), 0.0f);
  for (int64_t i = 0; i < rank_; ++i) {
    float* to = solution_.data() + i * d;
    if (entries_ >= queries_) {
      std::copy_n(residual_.data() + i * d, d, to);
      continue;
    }
    for (int64_t k = 0; k < queries_; ++k) {
      add(to, transposed_[static_cast<size_t>(i * queries_ + k)], residual_.data() + k * d, d);
    }
  }
  for (int64_t i = 0; i < rank_; ++i) {
    float* row = matrix_.data() + i * rank_;
    for (int64_t j = 0; j < i; ++j) {
      const float* other = matrix_.data() + j * rank_;
      row[j] = (row[j] - dot(row, other, j)) / other[j];
      add(solution_.data() + i * d, -row[j], solution_.data() + j * d, d);
    }
    // The ridge keeps it above 0 but for rounding.
    row[i] = std::sqrt(std::max(row[i] - dot(row, row, i), kRidge * kRidge * trace_ / static_cast<float>(queries_)));
    for (int64_t k = 0; k < d; ++k) solution_[static_cast<size_t>(i * d + k)] /= row[i];
  }
  for (int64_t i = rank_ - 1; i >= 0; --i) {
    const float* row = matrix_.data() + i * rank_;
    for (int64_t k = 0; k < d; ++k) solution_[static_cast<size_t>(i * d + k)] /= row[i];
    for (int64_t j = 0; j < i; ++j) add(solution_.data() + j * d, -row[j], solution_.data() + i * d, d);
  }
}

void LaneRefit::change(int64_t entry) {
  const int64_t d = input_.head_dim;
  float* value = values_.data() + entry * d;
  if (entries_ < queries_) return add(value, -1.0f, solution_.data() + entry * d, d);
  for (int64_t i = 0; i < queries_; ++i) {
    add(value, -attention_[static_cast<size_t>(i * entries_ + entry)], solution_.data() + i * d, d);
  }
}

}  // namespace pkv
