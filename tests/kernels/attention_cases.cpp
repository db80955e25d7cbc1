// Cases of attend: ragged lanes, groups of 1 to 64 query heads, head sizes 8 to 256, every entry format and mixed ones,
// single rows and chunks of a prompt, peaked scores, rows of nobody.
#include <algorithm>
#include <array>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "tests/kernels/case_data.h"
#include "tests/kernels/rounded_score.h"

namespace pkv {
namespace {

struct AttendSequence {
  int32_t rows = 1;
  std::vector<int32_t> visible;  // [kv_heads] slots the first row sees
};

// What the rows of one sequence see; columns and bands for every KV head.
struct PatternSpec {
  std::vector<std::vector<int32_t>> columns, bands;
  int32_t dense_from = 0;

  bool is_set() const { return !bands.empty(); }
  bool hides(int32_t kv_head, int32_t row_slot, int32_t slot) const {
    const int32_t row_block = row_slot / kSparseBlock, block = slot / kSparseBlock;
    if (!is_set() || block == 0 || row_block >= dense_from / kSparseBlock) return false;
    const auto has = [kv_head](const std::vector<std::vector<int32_t>>& lists, int32_t value) {
      return std::ranges::count(lists[static_cast<size_t>(kv_head)], value) > 0;
    };
    return !has(bands, row_block - block) && !has(columns, slot);
  }
};

struct AttendSpec {
  std::string name;
  int32_t group = 3;
  int32_t head_dim = 64;
  int32_t page_bytes = 4096;
  std::vector<KvDtype> dtypes;  // [kv_heads]
  std::vector<AttendSequence> sequences;
  Phase phase = Phase::kDecode;
  float query_deviation = 1.0f;
  bool with_lse = true;
  int32_t rows_between = 0;
  int32_t skipped_rows = 0;  // without a row in q and out
  PatternSpec pattern = {};
};

class AttendCase : public OperationCase {
 public:
  explicit AttendCase(AttendSpec spec) : OperationCase(absl::StrCat("attend/", spec.name)), spec_(std::move(spec)) {}

  bool runs_on(const Backend& backend) const override {
    return !spec_.pattern.is_set() || backend.traits().sparse_attention;
  }

  std::unique_ptr<PreparedCase> prepare(Backend& backend) const override {
    struct State {
      CaseTensor q, out, lse, columns, bands;
      BackendArray<RowSpan> spans;
      std::unique_ptr<CaseCache> cache;
    };
    auto state = std::make_shared<State>();
    const Data data = make_data();
    state->spans = {backend, data.spans};
    state->q = CaseTensor(backend, attended_rows(data.q), Placement::kStrided);
    // What rows of nobody hold before, they hold afterwards.
    state->out = CaseTensor(backend, Matrix(data.q.rows - spec_.skipped_rows, data.q.cols, 5.0f), Placement::kStrided);
    state->lse = CaseTensor(backend, Matrix(data.q.rows - spec_.skipped_rows, q_heads(), 5.0f), Placement::kStrided);
    state->cache = std::make_unique<CaseCache>(backend, data.cache);
    if (spec_.pattern.is_set()) {
      state->columns = lists(backend, spec_.pattern.columns);
      state->bands = lists(backend, spec_.pattern.bands);
    }
    const auto run = [this, state, &backend] {
      backend.attend({.q = state->q.view(),
                      .out = state->out.view(),
                      .lse = spec_.with_lse ? state->lse.view() : TensorView{},
                      .kv = state->cache->view(),
                      .spans = row_spans(state->spans),
                      .skipped_rows = spec_.skipped_rows,
                      .q_heads = q_heads(),
                      .kv_heads = kv_heads(),
                      .scale = scale(),
                      .phase = spec_.phase,
                      .sparse = {state->columns.view(), state->bands.view(), spec_.pattern.dense_from}});
    };
    return make_prepared(run, [state, &backend] {
      return Outputs{state->out.floats(backend, "out"), state->lse.floats(backend, "lse")};
    });
  }

  std::vector<double> tolerance(const Outputs& expected, size_t output, Accuracy accuracy) const override {
    const Data data = make_data();
    std::vector<double> tolerance(expected[output].floats.size(), 0.0);
    for (const RowSpan& span : data.spans) {
      for (int32_t g = 0; g < kv_heads(); ++g) {
        const int32_t lane = span.first_lane + g;
        const int32_t seen = data.cache.lanes[static_cast<size_t>(lane)].visible;
        if (span.rows == 0) continue;
        const Matrix keys = data.cache.keys(lane, seen + span.rows - 1),
                     values = data.cache.values(lane, seen + span.rows - 1);
        for (int32_t i = std::clamp(spec_.skipped_rows - span.first_row, 0, span.rows); i < span.rows; ++i) {
          for (int32_t h = g * spec_.group; h < (g + 1) * spec_.group; ++h) {
            const float* query = data.q.row(span.first_row + i) + static_cast<int64_t>(h) * spec_.head_dim;
            const Errors errors = expected_errors(query, keys, values, seen + i, g);
            const int64_t row = span.first_row + i - spec_.skipped_rows;
            if (output == 1) {
              if (spec_.with_lse) tolerance[static_cast<size_t>(row * q_heads() + h)] = errors.lse(accuracy);
              continue;
            }
            const auto at = static_cast<size_t>(row * data.q.cols + static_cast<int64_t>(h) * spec_.head_dim);
            for (size_t c = 0; c < static_cast<size_t>(spec_.head_dim); ++c)
              tolerance[at + c] = errors.out(c, accuracy);
          }
        }
      }
    }
    return tolerance;
  }

 private:
  struct Data {
    Matrix q;
    std::vector<RowSpan> spans;
    CacheContent cache;
  };

  // Sizes from which the error of one query's result follows.
  struct Errors {
    double score_size = 0;                           // largest sum of absolute products of a scaled score
    double score_deviation = 0;                      // of a scaled score when query and key are rounded to bfloat16
    std::vector<double> value_size, weighted_value;  // per dimension: max |v|, root of the sum of (p v)^2

    // Float32: some roundings of numbers of the scores' size, and of the exponential.
    double exact() const { return 1e-6 * (1.0 + score_size); }
    double lse(Accuracy accuracy) const { return exact() + (accuracy == Accuracy::kDefault ? 6 * score_deviation : 0); }
    double out(size_t c, Accuracy accuracy) const {
      double allowed = exact() * value_size[c];
      // Scores, probabilities and values are each rounded; the errors of different slots are independent.
      if (accuracy == Accuracy::kDefault) allowed += 6 * (2 * score_deviation + 2 * kBf16Deviation) * weighted_value[c];
      return allowed;
    }
  };

  int32_t kv_heads() const { return static_cast<int32_t>(spec_.dtypes.size()); }
  int32_t q_heads() const { return kv_heads() * spec_.group; }
  float scale() const { return 1.0f / std::sqrt(static_cast<float>(spec_.head_dim)); }

  Matrix attended_rows(const Matrix& q) const {
    Matrix rows(q.rows - spec_.skipped_rows, q.cols);
    rows.values.assign(q.row(spec_.skipped_rows), q.row(0) + q.values.size());
    return rows;
  }

  Data make_data() const {
    auto random = rng();
    CacheSpec cache{.head_dim = spec_.head_dim, .page_bytes = spec_.page_bytes};
    std::vector<RowSpan> spans;
    int32_t rows = 0;
    for (const AttendSequence& sequence : spec_.sequences) {
      spans.push_back(
          {.first_row = rows, .rows = sequence.rows, .first_lane = static_cast<int32_t>(cache.lanes.size())});
      rows += sequence.rows + spec_.rows_between;
      for (size_t g = 0; g < spec_.dtypes.size(); ++g) {
        const int32_t visible = sequence.visible[g], length = visible + std::max(sequence.rows, 1) - 1;
        cache.lanes.push_back(
            {.filled = length,
             .lane = {.length = length, .write_slot = visible - 1, .visible = visible, .dtype = spec_.dtypes[g]}});
      }
    }
    CacheContent content(random, std::move(cache));
    Matrix q = random_matrix(random, rows, static_cast<int64_t>(q_heads()) * spec_.head_dim, spec_.query_deviation);
    return {std::move(q), std::move(spans), std::move(content)};
  }

  static CaseTensor lists(Backend& backend, const std::vector<std::vector<int32_t>>& of_heads) {
    std::vector<int32_t> all;
    for (const std::vector<int32_t>& list : of_heads) all.insert(all.end(), list.begin(), list.end());
    return {backend, static_cast<int64_t>(of_heads.size()), static_cast<int64_t>(of_heads[0].size()), all};
  }

  Errors expected_errors(const float* query, const Matrix& keys, const Matrix& values, int32_t seen,
                         int32_t kv_head) const {
    const auto dimensions = static_cast<size_t>(spec_.head_dim);
    Errors errors{.value_size = std::vector<double>(dimensions), .weighted_value = std::vector<double>(dimensions)};
    std::vector<double> scores(static_cast<size_t>(seen));
    double highest = -INFINITY, sum = 0;
    for (int32_t j = 0; j < seen; ++j) {
      double score = 0;
      for (size_t i = 0; i < dimensions; ++i) score += static_cast<double>(query[i]) * keys.row(j)[i];
      scores[static_cast<size_t>(j)] = spec_.pattern.hides(kv_head, seen - 1, j) ? -INFINITY : score * scale();
      highest = std::max(highest, scores[static_cast<size_t>(j)]);
      errors.score_size = std::max(errors.score_size, scale() * absolute_dot(query, keys.row(j), spec_.head_dim));
      errors.score_deviation =
          std::max(errors.score_deviation, scale() * rounded_dot_deviation(query, keys.row(j), spec_.head_dim));
    }
    for (double& score : scores) sum += score = std::exp(score - highest);
    for (int32_t j = 0; j < seen; ++j) {
      const double probability = scores[static_cast<size_t>(j)] / sum;
      for (size_t i = 0; i < dimensions; ++i) {
        const double value = std::abs(values.row(j)[i]);
        errors.value_size[i] = std::max(errors.value_size[i], value);
        errors.weighted_value[i] += probability * probability * value * value;
      }
    }
    for (double& value : errors.weighted_value) value = std::sqrt(value);
    return errors;
  }

  AttendSpec spec_;
};

}  // namespace

void add_attention_cases(OperationCases& cases) {
  const auto add = [&](AttendSpec spec) { cases.push_back(std::make_unique<AttendCase>(std::move(spec))); };
  constexpr KvDtype kHalf = KvDtype::kF16, kFull = KvDtype::kF32;
  const std::vector<AttendSequence> ragged = {
      {1, {1, 16, 17}}, {1, {100, 513, 3}}, {1, {64, 65, 63}}, {1, {8, 300, 40}}};
  for (const EntryFormat& format : kEntryFormats.rows) {
    const KvDtype dtype = format.id;
    const std::string name = absl::StrCat(format.name, "_");
    const std::vector<KvDtype> three(3, dtype);
    for (Phase phase : {Phase::kDecode, Phase::kPrefill}) {
      const std::string phase_name = name + (phase == Phase::kDecode ? "decode_" : "prefill_");
      add({.name = phase_name + "ragged", .dtypes = three, .sequences = ragged, .phase = phase, .rows_between = 2});
      add({.name = phase_name + "peaked",
           .dtypes = three,
           .sequences = ragged,
           .phase = phase,
           .query_deviation = 12.0f});
      add({.name = phase_name + "pages_of_3072_bytes",
           .page_bytes = 3072,
           .dtypes = three,
           .sequences = ragged,
           .phase = phase});
      add({.name = phase_name + "group_1", .group = 1, .dtypes = three, .sequences = ragged, .phase = phase});
      add({.name = phase_name + "group_4_d128",
           .group = 4,
           .head_dim = 128,
           .dtypes = {dtype, dtype},
           .sequences = {{1, {33, 70}}, {1, {500, 7}}},
           .phase = phase});
      add({.name = phase_name + "group_8_d80",
           .group = 8,
           .head_dim = 80,
           .dtypes = {dtype},
           .sequences = {{1, {200}}, {1, {12}}},
           .phase = phase,
           .with_lse = false});
      // Heads that do not fill a kernel's last part.
      for (const int32_t group : {7, 12}) {
        add({.name = absl::StrCat(phase_name, "group_", group),
             .group = group,
             .dtypes = {dtype, dtype},
             .sequences = {{1, {70, 4}}, {1, {9, 300}}},
             .phase = phase});
      }
      // The ends of what the cpu backend says it supports.
      add({.name = phase_name + "group_64_d8",
           .group = 64,
           .head_dim = 8,
           .dtypes = {dtype},
           .sequences = {{1, {70}}, {1, {3}}},
           .phase = phase});
      add({.name = phase_name + "group_2_d256",
           .group = 2,
           .head_dim = 256,
           .dtypes = {dtype},
           .sequences = {{1, {40}}, {1, {9}}},
           .phase = phase});
      add({.name = phase_name + "no_sequences", .dtypes = three, .sequences = {}, .phase = phase});
    }
    add({.name = name + "prompt", .dtypes = three, .sequences = {{130, {1, 1, 1}}}, .phase = Phase::kPrefill});
    add({.name = name + "prompt_chunk_and_others",
         .dtypes = three,
         .sequences = {{33, {200, 77, 1}}, {0, {4, 4, 4}}, {7, {9, 50, 16}}},
         .phase = Phase::kPrefill,
         .rows_between = 1});
    for (const int32_t skipped : {1, 20, 33, 38, 42}) {  // inside the chunk, all of it, inside the last, everything
      add({.name = absl::StrCat(name, "prompt_chunk_and_others_without_", skipped),
           .dtypes = three,
           .sequences = {{33, {200, 77, 1}}, {0, {4, 4, 4}}, {7, {9, 50, 16}}},
           .phase = Phase::kPrefill,
           .rows_between = 1,
           .skipped_rows = skipped});
    }
    add({.name = name + "decode_without_2", .dtypes = three, .sequences = ragged, .skipped_rows = 2});
    add({.name = name + "prompt_peaked",
         .dtypes = three,
         .sequences = {{40, {90, 31, 5}}},
         .phase = Phase::kPrefill,
         .query_deviation = 12.0f,
         .with_lse = false});
    add({.name = name + "prompt_pages_of_3072_bytes",
         .page_bytes = 3072,
         .dtypes = three,
         .sequences = {{50, {20, 13, 12}}},
         .phase = Phase::kPrefill});
    add({.name = name + "prompt_group_1",
         .group = 1,
         .dtypes = three,
         .sequences = {{19, {40, 1, 5}}},
         .phase = Phase::kPrefill});
    add({.name = name + "prompt_group_4_d128",
         .group = 4,
         .head_dim = 128,
         .dtypes = {dtype, dtype},
         .sequences = {{21, {60, 8}}},
         .phase = Phase::kPrefill});
    add({.name = name + "prompt_group_8_d80",
         .group = 8,
         .head_dim = 80,
         .dtypes = {dtype},
         .sequences = {{37, {25}}},
         .phase = Phase::kPrefill});
    add({.name = name + "prompt_group_7",
         .group = 7,
         .dtypes = {dtype, dtype},
         .sequences = {{23, {50, 3}}, {2, {1, 64}}},
         .phase = Phase::kPrefill});
    add({.name = name + "prompt_group_64_d8",
         .group = 64,
         .head_dim = 8,
         .dtypes = {dtype},
         .sequences = {{11, {20}}},
         .phase = Phase::kPrefill});
    for (const auto& [rows, before, dense] : {std::array{500, 1, 9999}, {70, 600, 9999}, {90, 1500, 1550}}) {
      add({.name = absl::StrCat(name, "sparse_", rows, "_at_", before),
           .dtypes = {dtype, dtype},
           .sequences = {{rows, {before, before}}},
           .phase = Phase::kPrefill,
           .pattern = {.columns = {{64, 65, 200, 400, 401}, {70, 128, 191, 320, 1400}},
                       .bands = {{0, 1, 3}, {0, 1, 9}},
                       .dense_from = dense}});
    }
    // The default model at depth.
    add({.name = name + "decode_depth_8000", .dtypes = three, .sequences = {{1, {8000, 8000, 8000}}}});
    add({.name = name + "decode_depth_18000",
         .group = 1,
         .head_dim = 8,
         .dtypes = {dtype},
         .sequences = {{1, {18000}}, {1, {3}}}});
    add({.name = name + "decode_compressed",
         .dtypes = three,
         .sequences = {{1, {1400, 900, 1000}}, {1, {242, 128, 14}}}});
    add({.name = name + "prompt_64_at_2000",
         .dtypes = three,
         .sequences = {{64, {2000, 2000, 2000}}},
         .phase = Phase::kPrefill});
  }
  add({.name = "mixed_decode", .dtypes = {kHalf, kFull, KvDtype::kK8V4}, .sequences = ragged});
  add({.name = "mixed_prompt",
       .dtypes = {kFull, kHalf, KvDtype::kK8V4},
       .sequences = {{25, {30, 1, 90}}},
       .phase = Phase::kPrefill});
  add({.name = "sparse_group_7_without_3",
       .group = 7,
       .dtypes = {kHalf, kHalf},
       .sequences = {{150, {400, 400}}},
       .phase = Phase::kPrefill,
       .with_lse = false,
       .skipped_rows = 3,
       .pattern = {.columns = {{100}, {300}}, .bands = {{0, 1}, {0, 1}}, .dense_from = 500}});
  PatternSpec many{.columns = {{}}, .bands = {{0, 1, 2}}, .dense_from = 3000};
  for (int32_t column = 64; column < 2000; column += 2) many.columns[0].push_back(column);
  add({.name = "sparse_many_columns",
       .dtypes = {kHalf},
       .sequences = {{100, {2000}}},
       .phase = Phase::kPrefill,
       .pattern = many});
}

}  // namespace pkv
