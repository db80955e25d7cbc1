// What decides, while tokens are generated, which entry of a full lane goes for the new one (docs/policies.md, "When
// entries go"), as one decode step sees it. Plain data, the same structs on every backend, and the arithmetic that host
// and device code share.
//
// Every entry has a score and a position, lane after lane of a sequence: entry s of a lane at Lane::first_score + s.
// Candidates are the entries that are no newer than the step's window lets them be and that may go at all. Of those
// with a score the one of the lowest rank goes, of equals the latest; where none has a score, the oldest.
#pragma once

#include <cstdint>
#include <limits>

#include "kernels/kv_view.h"

namespace pkv {

// In place of a score.
constexpr float kNoScore = std::numeric_limits<float>::quiet_NaN();      // none yet
constexpr float kNeverEvicted = std::numeric_limits<float>::infinity();  // of sinks and pins

// What entries are compared by.
enum class EntryRank : uint8_t {
  kScore,
  kScorePerQuery,  // the score, divided by the number of queries that could see the entry
  kAge,            // the oldest is the lowest
};

// The score of an entry when it comes.
enum class NewEntryScore : uint8_t {
  kUnscored,
  kZero,  // attention is added to it
  kPosition,
  kHash,           // entry_hash()
  kKeyNorm,        // minus the length of its key
  kKeySimilarity,  // minus the cosine of its key to the sum of the unit-length keys, its own among them
};
constexpr bool needs_key(NewEntryScore score) {
  return score == NewEntryScore::kKeyNorm || score == NewEntryScore::kKeySimilarity;
}
constexpr bool grows_by_attention(NewEntryScore score) { return score == NewEntryScore::kZero; }

// Lanes of one layer of one sequence with what their entries are ranked by.
struct ScoredLanes {
  const Lane* lanes = nullptr;  // [count]
  int32_t count = 0;
  float* scores = nullptr;       // of all lanes of the sequence
  int32_t* positions = nullptr;  // likewise
};

// A sequence of a step whose entries go: its new token and how entries are ranked.
struct EvictingRow {
  float* scores = nullptr;       // of all lanes of the sequence
  int32_t* positions = nullptr;  // likewise
  float* key_sums = nullptr;     // [layers * kv_heads, d] sums of unit-length keys: NewEntryScore::kKeySimilarity
  float* queries = nullptr;      // [layers * window, Hq * d] of the newest tokens, each at position % window of its
                                 // layer's rows; nullptr: they are not kept
  uint64_t seed = 0;             // NewEntryScore::kHash
  int32_t row = 0;               // of the step; its lanes are [row * kv_heads, (row + 1) * kv_heads) of every layer
  int32_t position = 0;          // of the token
  int32_t window = 1;            // newest tokens that stay, this one among them; at least 1
  EntryRank rank = EntryRank::kScore;
  NewEntryScore new_score = NewEntryScore::kUnscored;
};

// The evicting sequences of a decode step, over some or all of its layers.
struct EvictingStep {
  const EvictingRow* rows = nullptr;  // [count]
  int32_t count = 0;
  Lane* lanes = nullptr;  // [layers][lanes_per_layer]
  int32_t lanes_per_layer = 0;
  int32_t first_layer = 0;  // whose lanes come first
  int32_t layers = 0;
  int32_t kv_heads = 0;
};

// The queries of a decode step's rows in one layer, with what they are multiplied by.
struct TokenQueries {
  TensorView q;  // [R, Hq * d], after RoPE
  KvView kv;     // with the layer's lanes
  int32_t q_heads = 0;
  float scale = 0;  // 1 / sqrt(d)
  // Room for what one row comes to, in columns for the longest lane's entries; who needs none leaves it as it is.
  TensorView sums;  // [Hq, columns]
  TensorView mass;  // [Hkv, columns]
};

// Entries of a lane before the step's token has its slot.
constexpr int32_t entries_before(const Lane& lane) {
  return lane.write_slot == kChosenByEviction ? lane.length : lane.length - 1;
}

constexpr bool may_go(const EvictingRow& row, float score, int32_t position) {
  return position <= row.position - row.window && score != kNeverEvicted;
}

// `age`: the number of queries that could see the entry.
constexpr float entry_rank(EntryRank rank, float score, int32_t age) {
  switch (rank) {
    case EntryRank::kScore:
      return score;
    case EntryRank::kScorePerQuery:
      return score / static_cast<float>(age);
    case EntryRank::kAge:
      return -static_cast<float>(age);
  }
  return score;
}

}  // namespace pkv
