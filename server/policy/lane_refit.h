// The values of what one lane keeps, changed so that attention over them gives given queries what attention over the
// whole lane gave them: ridge regression (docs/policies.md). On the host, in float32.
//
// M queries, c entries, d head size. P [M, c] is the queries' attention to the entries that are kept, O [M, d] what
// they got from the whole lane, V [c, d] the values. With r = P V - O the new values are the ones nearest to V that
// make |r|^2 + lambda |V' - V|^2 smallest: V' = V - P^T (P P^T + lambda I)^-1 r, lambda = trace(P P^T) / (10 M). Where
// there are fewer entries than queries the same is V' = V - (P^T P + lambda I)^-1 P^T r, of a smaller matrix.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace pkv {

class LaneRefit {
 public:
  struct Input {
    int32_t head_dim = 0;
    float scale = 0;
    std::span<const int32_t> unseen;  // [M] newest entries that a query does not see, fewer than there are
    std::span<const float> queries;   // [M, d]
    std::span<const float> outputs;   // [M, d]: O
    std::span<const float> keys;      // [c, d] as they are stored
  };
  // What `input` refers to must outlive this. `values` [c, d]: V, which become V'.
  LaneRefit(const Input& input, std::vector<float> values);
  // What one of M queries and c entries takes, the input aside.
  static uint64_t bytes(int64_t queries, int64_t entries, int32_t head_dim);
  // Multiply-adds of all of it.
  static int64_t work(int64_t queries, int64_t entries, int32_t head_dim);

  bool done() const { return next_ == units(); }
  // Goes on for about so many multiply-adds, at least one unit. Not when it is done.
  void run(int64_t most_work);
  const std::vector<float>& values() const { return values_; }

 private:
  int64_t units() const { return queries_ + rank_ + 1 + entries_; }
  int64_t run_unit();
  void attend(int64_t query);
  void transpose();
  void multiply(int64_t row);
  void solve();
  void change(int64_t entry);

  Input input_;
  int64_t queries_ = 0, entries_ = 0, rank_ = 0;  // M, c and the smaller of them
  int64_t next_ = 0;                              // of the units of work
  std::vector<float> values_;
  std::vector<float> attention_;   // [M, c]: P
  std::vector<float> transposed_;  // [c, M], where c < M
  std::vector<float> matrix_;      // [rank, rank], its lower triangle, then its Cholesky factor
  std::vector<float> residual_;    // [M, d]: r
  std::vector<float> solution_;    // [rank, d]
  float trace_ = 0;
};

}  // namespace pkv
