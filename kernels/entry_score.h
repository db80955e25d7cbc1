// Scores of entries that no query takes part in. Plain data and constexpr: host and device code share it.
#pragma once

#include <cstdint>

namespace pkv {

// What score_entries() makes of an entry, whose KV head is g and whose column is j of n; straight after a prompt a
// column is a position.
enum class EntryScore : uint8_t {
  kPosition,  // j: exact below 2^24
  kHash,      // entry_hash(seed, layer, g, j)
  kNegated,   // minus the score there is
  kPerQuery,  // the score there is divided by n - j, the number of queries that could see the entry
};

struct EntryScoring {
  EntryScore kind = EntryScore::kPosition;
  uint64_t seed = 0;  // kHash
  int32_t layer = 0;  // kHash
};

// One step of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014).
constexpr uint64_t splitmix64(uint64_t state) {
  state += 0x9e3779b97f4a7c15u;
  state = (state ^ (state >> 30)) * 0xbf58476d1ce4e5b9u;
  state = (state ^ (state >> 27)) * 0x94d049bb133111ebu;
  return state ^ (state >> 31);
}

// In [0, 1), of 24 bits, which a float holds exactly. Depends on the seed and the entry's place alone.
constexpr float entry_hash(uint64_t seed, int32_t layer, int32_t kv_head, int32_t position) {
  const uint64_t lane = splitmix64(splitmix64(seed) ^ static_cast<uint64_t>(layer)) ^ static_cast<uint64_t>(kv_head);
  const uint64_t bits = splitmix64(splitmix64(lane) ^ static_cast<uint64_t>(position)) >> 40;
  return static_cast<float>(bits) * 0x1p-24f;
}

// The score of one entry in place of `score`.
constexpr float score_entry(const EntryScoring& scoring, int32_t kv_head, int32_t column, int32_t columns,
                            float score) {
  switch (scoring.kind) {
    case EntryScore::kPosition:
      return static_cast<float>(column);
    case EntryScore::kHash:
      return entry_hash(scoring.seed, scoring.layer, kv_head, column);
    case EntryScore::kNegated:
      return -score;
    case EntryScore::kPerQuery:
      return score / static_cast<float>(columns - column);
  }
  return score;
}

}  // namespace pkv
