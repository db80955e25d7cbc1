// What docs/policies.md says about evictions while generating, word by word and in no hurry: lanes are lists of entries
// in the order of their positions, every score is computed from the keys that are there. Shares no code with the
// server.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "tests/unit/policy/evicting_sequence.h"

namespace pkv {

struct PlainEntry {
  int32_t position = 0;
  float score = 0;  // NaN: none yet
  std::vector<float> key;
};

struct PlainLane {
  int32_t limit = 0;
  std::vector<PlainEntry> entries;
  std::vector<float> state;  // keydiff: sum of the unit-length keys
};

class PlainEvictions {
 public:
  // `factors` [layers * Hq * d][d]: the heads' value factors; keys are values here.
  PlainEvictions(const Planned& planned, const Evictor::Options& options, std::vector<float> factors)
      : planned_(planned), options_(options), factors_(std::move(factors)) {
    for (const int32_t limit : planned.plan.lane_limits) lanes_.push_back({.limit = limit});
    queries_.resize(static_cast<size_t>(options.geometry.layers));
  }

  const PlainLane& lane(int32_t layer, int32_t kv_head) const { return lanes_[index(layer, kv_head)]; }
  uint64_t evicted() const { return evicted_; }

  void start_lane(int32_t layer, int32_t kv_head, const LaneStart& start) {
    PlainLane& lane = lanes_[index(layer, kv_head)];
    const auto d = static_cast<std::ptrdiff_t>(options_.geometry.head_dim);
    for (size_t i = 0; i < start.positions.size(); ++i) {
      const auto key = start.keys.begin() + static_cast<std::ptrdiff_t>(i) * d;
      lane.entries.push_back({start.positions[i], start.scores[i], {key, key + d}});
    }
    lane.state = start.state;
    if (planned_.plan.shares(layer)) lane.limit = static_cast<int32_t>(start.positions.size());
  }
  void set_newest_queries(int32_t layer, const std::vector<std::vector<float>>& rows) {
    queries_[static_cast<size_t>(layer)] = rows;
  }

  void step(int32_t position, const TokenRows& token) {
    for (int32_t layer = 0; layer < options_.geometry.layers; ++layer) {
      if (refreshes() && is_due(layer, position)) refresh(layer);
      for (int32_t head = 0; head < options_.geometry.kv_heads; ++head) place(layer, head, position, token);
      score_new(layer, position, token);
    }
    ++tokens_;
  }

 private:
  using Rows = std::vector<std::vector<float>>;

  PolicyKind kind() const { return planned_.spec.kind; }
  bool refreshes() const {
    constexpr std::array kRefreshing = {PolicyKind::kSnapKv,       PolicyKind::kPyramidKv, PolicyKind::kAdaSnapKv,
                                        PolicyKind::kAdaPyramidKv, PolicyKind::kFunnel,    PolicyKind::kTova};
    return std::find(kRefreshing.begin(), kRefreshing.end(), kind()) != kRefreshing.end();
  }
  size_t index(int32_t layer, int32_t kv_head) const {
    return static_cast<size_t>(layer * options_.geometry.kv_heads + kv_head);
  }
  int32_t window() const { return planned_.plan.window_tokens; }

  bool may_go(const PlainEntry& entry, int32_t position) const {
    for (const TokenSpan& span : planned_.plan.kept_spans) {
      if (entry.position >= span.begin && entry.position < span.end) return false;
    }
    return entry.position <= position - std::max(1, window());
  }
  bool is_full(const PlainLane& lane) const { return static_cast<int32_t>(lane.entries.size()) == lane.limit; }

  double rank(const PlainEntry& entry, int32_t position) const {
    if (kind() == PolicyKind::kStreamingLlm) return entry.position;
    if (kind() == PolicyKind::kH2o && planned_.spec.params.h2o_score == H2oScore::kMean) {
      return entry.score / static_cast<float>(position - entry.position);
    }
    return entry.score;
  }

  bool is_due(int32_t layer, int32_t position) const {
    if (tokens_ > 0 && tokens_ % options_.interval_tokens == 0) return true;
    for (int32_t head = 0; head < options_.geometry.kv_heads; ++head) {
      const PlainLane& lane = this->lane(layer, head);
      const bool any = std::any_of(lane.entries.begin(), lane.entries.end(), [&](const PlainEntry& entry) {
        return may_go(entry, position) && !std::isnan(entry.score);
      });
      if (is_full(lane) && !any) return true;
    }
    return false;
  }

  void place(int32_t layer, int32_t head, int32_t position, const TokenRows& token) {
    PlainLane& lane = lanes_[index(layer, head)];
    if (is_full(lane)) {
      const PlainEntry *worst = nullptr, *oldest = nullptr;
      for (const PlainEntry& entry : lane.entries) {
        if (!may_go(entry, position)) continue;
        if (oldest == nullptr) oldest = &entry;
        if (std::isnan(entry.score)) continue;
        if (worst == nullptr || rank(entry, position) <= rank(*worst, position)) worst = &entry;  // equals: the later
      }
      const PlainEntry* gone = worst != nullptr ? worst : oldest;
      lane.entries.erase(lane.entries.begin() + (gone - lane.entries.data()));
      ++evicted_;
    }
    const auto d = static_cast<std::ptrdiff_t>(options_.geometry.head_dim);
    const auto key = token.k[static_cast<size_t>(layer)].begin() + head * d;
    lane.entries.push_back({position, std::numeric_limits<float>::quiet_NaN(), {key, key + d}});
  }

  void score_new(int32_t layer, int32_t position, const TokenRows& token) {
    const std::vector<float>& q = token.q[static_cast<size_t>(layer)];
    for (int32_t head = 0; head < options_.geometry.kv_heads; ++head) {
      PlainLane& lane = lanes_[index(layer, head)];
      float& score = lane.entries.back().score;
      switch (kind()) {
        case PolicyKind::kStreamingLlm:
          score = static_cast<float>(position);
          break;
        case PolicyKind::kL2Norm:
          score = static_cast<float>(-length(lane.entries.back().key));
          break;
        case PolicyKind::kKeyDiff:
          score = similarity(lane);
          break;
        case PolicyKind::kRandom:
          score = draw(planned_.spec.params.seed, layer, head, position);
          break;
        case PolicyKind::kH2o: {
          score = 0;
          const std::vector<double> mass = mass_of(lane, {q}, head, group());
          for (size_t i = 0; i < mass.size(); ++i) {
            lane.entries[i].score += static_cast<float>(mass[i] / group());
          }
          break;
        }
        default:
          break;
      }
    }
    Rows& newest = queries_[static_cast<size_t>(layer)];
    newest.push_back(q);
    if (newest.size() > static_cast<size_t>(std::max(1, window()))) newest.erase(newest.begin());
  }

  // ---- scores
  int32_t group() const { return options_.q_heads / options_.geometry.kv_heads; }

  static double length(const std::vector<float>& vector) {
    double squares = 0;
    for (const float value : vector) squares += static_cast<double>(value) * value;
    return std::sqrt(squares);
  }

  // Minus the cosine of the newest key to the sum of all keys scaled to length one.
  static float similarity(PlainLane& lane) {
    const std::vector<float>& key = lane.entries.back().key;
    const double key_length = length(key);
    if (key_length == 0) return 0;
    double product = 0;
    for (size_t i = 0; i < key.size(); ++i) {
      lane.state[i] = static_cast<float>(lane.state[i] + key[i] / key_length);
      product += static_cast<double>(key[i]) * lane.state[i];
    }
    const double lengths = key_length * length(lane.state);
    return lengths > 0 ? static_cast<float>(-product / lengths) : 0.0f;
  }

  // SplitMix64 over seed, layer, KV head and position.
  static float draw(uint64_t seed, int32_t layer, int32_t head, int32_t position) {
    const auto mixed = [](uint64_t state) {
      state += 0x9e3779b97f4a7c15u;
      state = (state ^ (state >> 30)) * 0xbf58476d1ce4e5b9u;
      state = (state ^ (state >> 27)) * 0x94d049bb133111ebu;
      return state ^ (state >> 31);
    };
    uint64_t state = mixed(seed);
    for (const int32_t next : {layer, head, position}) state = mixed(state ^ static_cast<uint64_t>(next));
    return static_cast<float>(state >> 40) * 0x1p-24f;
  }

  // |v R| of a query head, the entry's key being its value.
  double weight_of(int32_t layer, int32_t head, const std::vector<float>& value) const {
    const size_t d = value.size(), first = static_cast<size_t>(layer * options_.q_heads + head) * d;
    double squares = 0;
    for (size_t column = 0; column < d; ++column) {
      double product = 0;
      for (size_t i = 0; i < d; ++i) product += static_cast<double>(value[i]) * factors_[(first + i) * d + column];
      squares += product * product;
    }
    return std::sqrt(squares);
  }

  // The root mean square over rows and query heads of attention times weight.
  std::vector<double> weighed(int32_t layer, int32_t kv_head, const Rows& rows) const {
    const PlainLane& lane = this->lane(layer, kv_head);
    std::vector<double> scores(lane.entries.size(), 0.0);
    for (int32_t head = kv_head * group(); head < (kv_head + 1) * group(); ++head) {
      for (size_t row = 0; row < rows.size(); ++row) {
        const std::vector<double> given = attention_of(lane, rows, row, head);
        for (size_t j = 0; j < given.size(); ++j) {
          scores[j] += std::pow(given[j] * weight_of(layer, head, lane.entries[j].key), 2);
        }
      }
    }
    for (double& score : scores) score = std::sqrt(score / static_cast<double>(rows.size()) / group());
    return scores;
  }

  // What one of the newest queries gives to each entry that it sees: the last row everything, each one before it an
  // entry less.
  std::vector<double> attention_of(const PlainLane& lane, const Rows& rows, size_t row, int32_t head) const {
    const auto d = static_cast<size_t>(options_.geometry.head_dim);
    const size_t seen = lane.entries.size() - (rows.size() - 1 - row);
    std::vector<double> weights;
    for (size_t j = 0; j < seen; ++j) {
      double product = 0;
      for (size_t i = 0; i < d; ++i) {
        product += static_cast<double>(rows[row][static_cast<size_t>(head) * d + i]) * lane.entries[j].key[i];
      }
      weights.push_back(std::exp(product / std::sqrt(static_cast<double>(d))));
    }
    double total = 0;
    for (const double weight : weights) total += weight;
    for (double& weight : weights) weight /= total;
    return weights;
  }

  // What `rows`, the newest queries, give to each entry, summed over the rows and the query heads of `kv_head`.
  std::vector<double> mass_of(const PlainLane& lane, const Rows& rows, int32_t kv_head, int32_t heads) const {
    std::vector<double> mass(lane.entries.size(), 0.0);
    for (size_t row = 0; row < rows.size(); ++row) {
      for (int32_t head = kv_head * group(); head < kv_head * group() + heads; ++head) {
        const std::vector<double> given = attention_of(lane, rows, row, head);
        for (size_t j = 0; j < given.size(); ++j) mass[j] += given[j];
      }
    }
    return mass;
  }

  // The window's attention to every entry before it, pooled.
  void refresh(int32_t layer) {
    const int32_t heads = options_.geometry.kv_heads;
    const Rows& rows = queries_[static_cast<size_t>(layer)];
    std::vector<std::vector<double>> mass;
    const bool weighs = kind() == PolicyKind::kFunnel;
    for (int32_t head = 0; head < heads; ++head) {
      mass.push_back(weighs ? weighed(layer, head, rows) : mass_of(lane(layer, head), rows, head, group()));
    }
    if (kind() == PolicyKind::kTova) {  // one mean over all query heads
      std::vector<double> sum(mass[0].size(), 0.0);
      for (const std::vector<double>& of_head : mass) {
        for (size_t j = 0; j < sum.size(); ++j) sum[j] += of_head[j];
      }
      mass.assign(mass.size(), sum);
    }
    for (int32_t head = 0; head < heads; ++head) {
      PlainLane& lane = lanes_[index(layer, head)];
      const auto past = static_cast<int32_t>(lane.entries.size()) - window();
      if (past <= 0) continue;
      const int32_t width = weighs ? 5 : planned_.spec.params.kernel_size;
      const int32_t reach = kind() == PolicyKind::kTova ? 0 : width / 2;
      for (int32_t j = 0; j < static_cast<int32_t>(lane.entries.size()); ++j) {
        float& score = lane.entries[static_cast<size_t>(j)].score;
        score = std::numeric_limits<float>::quiet_NaN();
        for (int32_t i = std::max(0, j - reach); j < past && i <= std::min(past - 1, j + reach); ++i) {
          const auto near = static_cast<float>(mass[static_cast<size_t>(head)][static_cast<size_t>(i)]);
          if (std::isnan(score) || near > score) score = near;
        }
      }
    }
  }

  const Planned& planned_;
  Evictor::Options options_;
  std::vector<float> factors_;
  std::vector<PlainLane> lanes_;
  std::vector<Rows> queries_;  // per layer, oldest first
  int32_t tokens_ = 0;
  uint64_t evicted_ = 0;
};

}  // namespace pkv
