// Cases of sample_rows, token_logprobs and compare_rows: edits of all kinds, ties, infinities, rows that want different
// things, vocabularies of one token and of many blocks.
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "absl/strings/str_cat.h"
#include "tests/kernels/case_data.h"

namespace pkv {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNotANumber = std::numeric_limits<float>::quiet_NaN();

// Structs in a backend's memory.
template <typename T>
CaseTensor structs(Backend& backend, const std::vector<T>& content) {
  const auto* words = reinterpret_cast<const int32_t*>(content.data());
  const auto count = static_cast<int64_t>(content.size()) * kWords<T>;
  return CaseTensor(backend, 1, count, std::span(words, static_cast<size_t>(count)));
}

CaseTensor untouched(Backend& backend, int64_t rows, int64_t cols) {
  return CaseTensor(backend, rows, cols, std::vector<int32_t>(static_cast<size_t>(rows * cols), -77));
}

// The kinds of logits, row by row.
Matrix logits_of(std::mt19937& rng, int64_t rows, int64_t vocabulary) {
  Matrix logits = random_matrix(rng, rows, vocabulary, 3.0f);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t v = 0; v < vocabulary; ++v) {
      float& logit = logits.row(r)[v];
      if (r % 6 == 1) logit = 0.25f;                                  // all equal
      if (r % 6 == 2) logit = static_cast<float>(v * 31 % 7) - 3.0f;  // plateaus
      if (r % 6 == 3) logit *= 20;                                    // one stands out
      if (r % 6 == 4 && v % 5 != 2) logit = v % 5 == 1 ? kNotANumber : -kInfinity;
      if (r % 6 == 5) logit = v % 2 == 0 ? -0.0f : 0.0f;  // zeros of both signs are equal
    }
  }
  return logits;
}

// ---- sample_rows

struct SampleSpec {
  std::string name;
  int64_t rows = 6;
  int64_t vocabulary = 1000;
  int32_t ranked = 1;  // of most rows
  int32_t edits = 0;   // a row
  float mass_scale = 0;
};

class SampleCase : public OperationCase {
 public:
  explicit SampleCase(SampleSpec spec)
      : OperationCase(
            absl::StrCat("sample_rows/", spec.name, "/", spec.ranked, "_of_", spec.rows, "x", spec.vocabulary)),
        spec_(std::move(spec)) {}

  std::unique_ptr<PreparedCase> prepare(Backend& backend) const override {
    struct State {
      CaseTensor logits, edits, rows, ranked, mass;
    };
    auto state = std::make_shared<State>();
    auto random = rng();
    state->logits = CaseTensor(backend, logits_of(random, spec_.rows, spec_.vocabulary), Placement::kStrided);
    const int32_t edits = std::min(spec_.edits, static_cast<int32_t>(spec_.vocabulary));
    const std::vector<LogitEdit> tables = edits_of(random, edits);
    state->edits = structs(backend, tables);
    std::vector<SampleRow> rows;
    for (int32_t r = 0; r < spec_.rows; ++r) {
      SampleRow& row = rows.emplace_back();
      row.edits = row_as<LogitEdit>(state->edits.view(), 0) + r * edits;
      row.edit_count = edits;
      row.no_end = r % 2;
      row.ranked = r == 3 ? 0 : r == 4 ? 1 : spec_.ranked;
      row.mass_scale = r == 2 || r % 6 == 4 ? 0 : spec_.mass_scale;  // a mass with NaN means nothing
      if (edits == 0 || r % 3 == 0) continue;
      row.changed = edits / 2;
      const size_t changed = static_cast<size_t>(r * edits + row.changed);
      row.change = {.token = tables[changed].token, .bias = 1.5f, .repetition = 2.0f, .penalty = 0.25f};
    }
    state->rows = structs(backend, rows);
    state->ranked = untouched(backend, spec_.rows, spec_.ranked * kWords<RankedToken> + 3);
    state->mass = CaseTensor(backend, Matrix(spec_.rows, 1, -77), Placement::kDense);
    return make_prepared(
        [state, &backend] {
          backend.sample_rows({.logits = state->logits.view(),
                               .rows = row_as<SampleRow>(state->rows.view(), 0),
                               .ranked = state->ranked.view(),
                               .mass = state->mass.view()});
        },
        [state, &backend] {
          Output logits = state->logits.floats(backend, "logits");  // the same as before, to the bit
          for (const float value : logits.floats) logits.exact.push_back(std::bit_cast<int32_t>(value));
          logits.floats.clear();
          return Outputs{logits, state->edits.integers(backend, "edits"), state->ranked.integers(backend, "ranked"),
                         state->mass.floats(backend, "mass")};
        });
  }

  std::vector<double> tolerance(const Outputs& expected, size_t output, Accuracy) const override {
    return relative_tolerance(expected[output].floats, kMassError / 2, 0);
  }

 private:
  // Distinct tokens for every row.
  std::vector<LogitEdit> edits_of(std::mt19937& random, int32_t count) const {
    std::vector<LogitEdit> edits;
    for (int64_t r = 0; r < spec_.rows; ++r) {
      const auto first = static_cast<int32_t>(random() % static_cast<uint32_t>(spec_.vocabulary));
      for (int32_t i = 0; i < count; ++i) {
        LogitEdit& edit = edits.emplace_back();
        edit.token = static_cast<int32_t>((first + i) % spec_.vocabulary);
        const auto kind = random() % 5;
        if (kind == 0) edit.bias = static_cast<float>(random() % 200) / 10.0f - 10.0f;
        if (kind == 1) edit.repetition = 1.3f;
        if (kind == 2) edit.penalty = 0.5f * static_cast<float>(random() % 4);
        if (kind == 3) edit = {.token = edit.token, .bias = 3, .repetition = 0.7f, .penalty = -1};
        if (kind == 4) edit.ends = 1;
      }
    }
    return edits;
  }

  SampleSpec spec_;
};

// ---- token_logprobs

class LogprobCase : public OperationCase {
 public:
  LogprobCase(int64_t vocabulary, int32_t ranked)
      : OperationCase(absl::StrCat("token_logprobs/", ranked, "_of_9x", vocabulary)),
        vocabulary_(vocabulary),
        ranked_(ranked) {}

  std::unique_ptr<PreparedCase> prepare(Backend& backend) const override {
    struct State {
      CaseTensor logits, rows, log_sum_exp, target, ranked;
    };
    constexpr int32_t kRows = 9;
    auto state = std::make_shared<State>();
    auto random = rng();
    Matrix logits = logits_of(random, kRows, vocabulary_);
    for (float& logit : logits.values) {
      if (!std::isfinite(logit)) logit = -30;
    }
    state->logits = CaseTensor(backend, logits, Placement::kStrided);
    std::vector<LogprobRow> rows;
    for (int32_t r = 0; r < kRows; ++r) {
      rows.push_back({.ranked = r == 1   ? -1
                                : r == 2 ? 0
                                         : ranked_,
                      .target = r == 3 ? -1 : static_cast<int32_t>(r * 1000 % vocabulary_)});
    }
    state->rows = structs(backend, rows);
    state->log_sum_exp = CaseTensor(backend, Matrix(kRows, 1, -77), Placement::kStrided);
    state->target = CaseTensor(backend, Matrix(kRows, 1, -77), Placement::kDense);
    state->ranked = untouched(backend, kRows, ranked_ * kWords<RankedToken> + 2);
    return make_prepared(
        [state, &backend] {
          backend.token_logprobs({.logits = state->logits.view(),
                                  .rows = row_as<LogprobRow>(state->rows.view(), 0),
                                  .log_sum_exp = state->log_sum_exp.view(),
                                  .target = state->target.view(),
                                  .ranked = state->ranked.view()});
        },
        [state, &backend] {
          return Outputs{state->log_sum_exp.floats(backend, "log_sum_exp"), state->target.floats(backend, "target"),
                         state->ranked.integers(backend, "ranked")};
        });
  }

  // A few float32 roundings, and the error of a vectorised exp.
  std::vector<double> tolerance(const Outputs& expected, size_t output, Accuracy) const override {
    return relative_tolerance(expected[output].floats, output == 0 ? 2e-6 : 0, 0);
  }

 private:
  int64_t vocabulary_;
  int32_t ranked_;
};

// ---- compare_rows

class CompareCase : public OperationCase {
 public:
  explicit CompareCase(int64_t vocabulary)
      : OperationCase(absl::StrCat("compare_rows/5x", vocabulary)), vocabulary_(vocabulary) {}

  std::unique_ptr<PreparedCase> prepare(Backend& backend) const override {
    struct State {
      CaseTensor logits, baseline, results;
    };
    constexpr int64_t kRows = 5, kStride = kWords<RowComparison> + 2;
    auto state = std::make_shared<State>();
    auto random = rng();
    const Matrix baseline = random_matrix(random, 1, vocabulary_, 4.0f);
    Matrix logits = random_matrix(random, kRows, vocabulary_, 4.0f);
    for (int64_t v = 0; v < vocabulary_; ++v) {
      logits.row(0)[v] = baseline.row(0)[v];                             // the same
      logits.row(1)[v] = baseline.row(0)[v] + 5;                         // the same distribution
      logits.row(2)[v] = baseline.row(0)[v] + 0.01f * logits.row(2)[v];  // nearly so
    }
    state->logits = CaseTensor(backend, logits, Placement::kStrided);
    state->baseline = CaseTensor(backend, baseline, Placement::kDense);
    state->results = untouched(backend, kRows, kStride);
    return make_prepared(
        [state, &backend] {
          backend.compare_rows(state->logits.view(), state->baseline.view(), state->results.view());
        },
        [state, &backend] {
          const Output words = state->results.integers(backend, "");
          Output kl{.name = "kl", .floats = {}, .exact = {}}, same{.name = "same_best", .floats = {}, .exact = {}};
          for (int64_t r = 0; r < kRows; ++r) {
            RowComparison result;
            std::memcpy(static_cast<void*>(&result), words.exact.data() + r * kStride, sizeof(result));
            kl.floats.push_back(static_cast<float>(result.kl));
            same.exact.insert(same.exact.end(),
                              {result.same_best, words.exact[static_cast<size_t>((r + 1) * kStride - 1)]});
          }
          return Outputs{kl, same};
        });
  }

  std::vector<double> tolerance(const Outputs& expected, size_t output, Accuracy) const override {
    return relative_tolerance(expected[output].floats, 1e-6, 1e-12);
  }

 private:
  int64_t vocabulary_;
};

}  // namespace

void add_sampling_cases(OperationCases& cases) {
  const auto sample = [&](SampleSpec spec) { cases.push_back(std::make_unique<SampleCase>(std::move(spec))); };
  for (const int64_t vocabulary : {1, 7, 64, 65, 1000, 5000, 300'000}) {
    const auto most = static_cast<int32_t>(std::min<int64_t>(vocabulary, kMostRanked));
    sample({.name = "best", .vocabulary = vocabulary});
    sample({.name = "mass", .vocabulary = vocabulary, .ranked = most, .mass_scale = 1.25f});
    sample({.name = "edits", .vocabulary = vocabulary, .ranked = std::min(most, 41), .edits = 50, .mass_scale = 0.5f});
  }
  sample({.name = "edits_of_all", .rows = 13, .vocabulary = 500, .ranked = 256, .edits = 500, .mass_scale = 10});
  sample({.name = "one_row", .rows = 1, .vocabulary = 49152, .ranked = 256, .edits = 10, .mass_scale = 1});
  for (const int64_t vocabulary : {1, 7, 1000, 49152}) {
    for (const int32_t ranked : {0, 1, 20}) {
      if (ranked <= vocabulary) cases.push_back(std::make_unique<LogprobCase>(vocabulary, ranked));
    }
  }
  for (const int64_t vocabulary : {1, 2, 320, 49152}) cases.push_back(std::make_unique<CompareCase>(vocabulary));
}

}  // namespace pkv
