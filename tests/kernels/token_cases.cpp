// Cases of what a decode step's queries are to sequences whose entries go: they are kept for later, or the attention
// they give makes scores grow. Ragged lanes, formats, groups of query heads, sequences that want neither.
#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "tests/kernels/case_data.h"

namespace pkv {
namespace {

constexpr int32_t kFirstLayer = 1;  // the step's

// The step's sequences, all of which evict; every third wants nothing of its query.
struct TokenSpec {
  std::string name;
  int32_t rows = 3;
  int32_t group = 3;
  int32_t head_dim = 64;
  std::vector<KvDtype> dtypes;   // [kv_heads]
  std::vector<int32_t> lengths;  // of a sequence's lanes [kv_heads]; the next one's are longer by one
};

class TokenCase : public OperationCase {
 public:
  TokenCase(const std::string& operation, TokenSpec spec)
      : OperationCase(absl::StrCat(operation, "/", spec.name)), spec_(std::move(spec)) {}

 protected:
  const TokenSpec& spec() const { return spec_; }
  int32_t kv_heads() const { return static_cast<int32_t>(spec_.dtypes.size()); }
  int32_t q_heads() const { return kv_heads() * spec_.group; }
  int64_t width() const { return int64_t{q_heads()} * spec_.head_dim; }
  static bool wants_query(int32_t row) { return row % 3 != 1; }
  EvictingStep step(const EvictingRow* rows, Lane* lanes) const {
    return {.rows = rows,
            .count = spec_.rows,
            .lanes = lanes,
            .lanes_per_layer = spec_.rows * kv_heads(),
            .first_layer = kFirstLayer,
            .layers = 1,
            .kv_heads = kv_heads()};
  }

 private:
  TokenSpec spec_;
};

class KeepQueriesCase : public TokenCase {
 public:
  explicit KeepQueriesCase(TokenSpec spec) : TokenCase("keep_queries", std::move(spec)) {}

  std::unique_ptr<PreparedCase> prepare(Backend& backend) const override {
    struct State {
      CaseTensor q;
      std::vector<CaseTensor> kept;
      BackendArray<EvictingRow> rows;
      BackendArray<Lane> lanes;
    };
    auto state = std::make_shared<State>();
    auto random = rng();
    state->q = CaseTensor(backend, random_matrix(random, spec().rows, width()), Placement::kStrided);
    std::vector<EvictingRow> rows;
    for (int32_t row = 0; row < spec().rows; ++row) {
      const int32_t window = 3 + row;
      state->kept.emplace_back(backend, Matrix(int64_t{kFirstLayer + 2} * window, width(), 7), Placement::kDense);
      rows.push_back({.queries = wants_query(row) ? state->kept.back().view().f32() : nullptr,
                      .row = row,
                      .position = 100 + 7 * row,
                      .window = window});
    }
    state->rows = {backend, rows};
    state->lanes = {backend, std::vector<Lane>(static_cast<size_t>(spec().rows * kv_heads()))};
    const auto run = [this, state, &backend] {
      backend.keep_queries(step(state->rows.data(), state->lanes.data()), state->q.view());
    };
    return make_prepared(run, [state, &backend] {
      Outputs outputs;
      for (const CaseTensor& kept : state->kept) outputs.push_back(kept.floats(backend, "kept"));
      return outputs;
    });
  }

  std::vector<double> tolerance(const Outputs& expected, size_t output, Accuracy) const override {
    return relative_tolerance(expected[output].floats, 0, 0);
  }
};

class AddAttentionCase : public TokenCase {
 public:
  explicit AddAttentionCase(TokenSpec spec) : TokenCase("add_attention", std::move(spec)) {}

  std::unique_ptr<PreparedCase> prepare(Backend& backend) const override {
    struct State {
      CaseTensor q, sums, mass;
      std::unique_ptr<CaseCache> cache;
      std::vector<CaseTensor> scores;  // of a sequence each
      BackendArray<EvictingRow> rows;
    };
    auto state = std::make_shared<State>();
    Data data = make_data();
    const int32_t columns = *std::max_element(spec().lengths.begin(), spec().lengths.end()) + spec().rows + 9;
    state->q = CaseTensor(backend, data.q, Placement::kStrided);
    state->sums = CaseTensor(backend, Matrix(q_heads() + 2, columns, 3), Placement::kDense);
    state->mass = CaseTensor(backend, Matrix(kv_heads() + 1, columns, 3), Placement::kDense);
    state->cache = std::make_unique<CaseCache>(backend, data.cache);
    std::vector<EvictingRow> rows;
    for (int32_t row = 0; row < spec().rows; ++row) {
      state->scores.emplace_back(backend, data.scores[static_cast<size_t>(row)], Placement::kDense);
      rows.push_back({.scores = state->scores.back().view().f32(),
                      .row = row,
                      .new_score = wants_query(row) ? NewEntryScore::kZero : NewEntryScore::kPosition});
    }
    state->rows = {backend, rows};
    const auto run = [this, state, &backend] {
      const KvView kv = state->cache->view();
      backend.add_attention(step(state->rows.data(), kv.lanes), {.q = state->q.view(),
                                                                 .kv = kv,
                                                                 .q_heads = q_heads(),
                                                                 .scale = scale(),
                                                                 .sums = state->sums.view(),
                                                                 .mass = state->mass.view()});
    };
    return make_prepared(run, [state, &backend] {
      Outputs outputs;
      for (const CaseTensor& scores : state->scores) {
        outputs.push_back(scores.floats(backend, "scores"));
        // What is no number is compared by its place.
        for (float& score : outputs.back().floats) {
          outputs.back().exact.push_back(std::isnan(score) ? 1 : 0);
          if (std::isnan(score)) score = 0;
        }
      }
      return outputs;
    });
  }

  // exp turns the absolute error of a score, some roundings of the sum of absolute products, into a relative one; the
  // log-sum-exp has it once more.
  std::vector<double> tolerance(const Outputs& expected, size_t output, Accuracy) const override {
    const Data data = make_data();
    const auto row = static_cast<int32_t>(output);
    double size = 0;
    for (int32_t head = 0; head < q_heads(); ++head) {
      const int32_t lane = row * kv_heads() + head / spec().group, entries = length(row, head / spec().group);
      const Matrix keys = data.cache.keys(lane, entries);
      const float* query = data.q.row(row) + int64_t{head} * spec().head_dim;
      for (int32_t j = 0; j < entries; ++j) {
        size = std::max(size, scale() * absolute_dot(query, keys.row(j), spec().head_dim));
      }
    }
    return relative_tolerance(expected[output].floats, 2e-7, wants_query(row) ? 2e-6 * (1.0 + size) : 0.0);
  }

 private:
  struct Data {
    Matrix q;
    CacheContent cache;
    std::vector<Matrix> scores;
  };

  int32_t length(int32_t row, int32_t kv_head) const { return spec().lengths[static_cast<size_t>(kv_head)] + row; }
  float scale() const { return 1.0f / std::sqrt(static_cast<float>(spec().head_dim)); }

  Data make_data() const {
    auto random = rng();
    CacheSpec cache{.head_dim = spec().head_dim};
    std::vector<Matrix> scores;
    for (int32_t row = 0; row < spec().rows; ++row) {
      int32_t entries = 0;
      for (int32_t head = 0; head < kv_heads(); ++head) {
        const int32_t count = length(row, head);
        cache.lanes.push_back({.filled = count,
                               .lane = {.length = count,
                                        .write_slot = count - 1,
                                        .visible = count,
                                        .first_score = entries,
                                        .dtype = spec().dtypes[static_cast<size_t>(head)]}});
        entries += count + 2;  // with room that is nobody's
      }
      Matrix all = random_matrix(random, 1, entries, 0.1f);
      for (int32_t i = 0; i < entries; i += 5) {
        all.values[static_cast<size_t>(i)] = i % 2 == 0 ? kNoScore : kNeverEvicted;
      }
      scores.push_back(std::move(all));
    }
    CacheContent content(random, std::move(cache));
    return {random_matrix(random, spec().rows, width(), 2.0f), std::move(content), std::move(scores)};
  }
};

}  // namespace

void add_token_cases(OperationCases& cases) {
  for (const int32_t rows : {1, 5}) {
    cases.push_back(std::make_unique<KeepQueriesCase>(
        TokenSpec{.name = absl::StrCat("rows_", rows), .rows = rows, .dtypes = {KvDtype::kF16, KvDtype::kF16}}));
  }
  const auto add = [&](TokenSpec spec) { cases.push_back(std::make_unique<AddAttentionCase>(std::move(spec))); };
  constexpr KvDtype kF16 = KvDtype::kF16;
  add({.name = "one_entry", .dtypes = {kF16}, .lengths = {1}});
  for (const EntryFormat& format : kEntryFormats.rows) {
    add({.name = std::string(format.name), .dtypes = {format.id, format.id}, .lengths = {70, 41}});
  }
  for (const int32_t group : {1, 2, 4, 8, 11}) {
    add({.name = absl::StrCat("group_", group), .group = group, .dtypes = {kF16, kF16}, .lengths = {90, 140}});
  }
  add({.name = "d80", .head_dim = 80, .dtypes = {kF16, KvDtype::kF32}, .lengths = {65, 64}});
  add({.name = "long", .rows = 2, .group = 9, .head_dim = 16, .dtypes = {kF16, kF16}, .lengths = {2500, 1030}});
}

}  // namespace pkv
