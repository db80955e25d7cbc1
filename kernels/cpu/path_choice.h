// Which instruction-set path serves what. A higher path is not faster on every CPU: where bfloat16 or 8-bit products
// run at half rate, or cost clock frequency, the path below wins. So the two paths that a use has are timed at start,
// and the lower one is taken where it is clearly faster. Except for products with tolerant weights: 8 bits are less
// exact, and have to be clearly faster to be taken.
#pragma once

#include <string>

#include "kernels/cpu/isa.h"

namespace pkv {

// Seconds that the same work takes on the two paths of one use. Zeros: not measured.
struct PathTime {
  double higher = 0;
  double lower = 0;
  bool differs = false;  // what the higher path computes is not what the lower one does, up to rounding
};

struct PathTimes {
  PathTime prompt_products;    // bf16 against avx512
  PathTime prompt_attention;   // bf16 against avx512
  PathTime decode_products;    // vnni against avx2
  PathTime tile_products;      // of prompts, amx against the faster of the two above
  PathTime tile_attention;     // likewise
  PathTime tolerant_products;  // of prompts, vnni against the fastest of all these
};

struct CpuPaths {
  IsaFeatures features;  // everything else, and all products of the exact mode
  IsaFeatures prompt_products;
  IsaFeatures prompt_attention;
  IsaFeatures decode_products;
  bool tolerant_in_8_bits = false;  // prompts' products with tolerant weights, instead of prompt_products; fast mode
  std::string measured;  // for people: "prompt products bf16 (1.92x avx512), ..."; empty where nothing was measured
};

// The highest path of `features` for every use; for tolerant weights 8 bits.
CpuPaths highest_paths(const IsaFeatures& features);

// Of the paths in `features` the lower one where the higher one took more than kClearlySlower times as long or computes
// something else; otherwise, and for what was not measured, the higher one. Noise below that never moves a choice. 8
// bits are taken where the path without took more than kClearlySlower times as long, and where nothing was measured.
constexpr double kClearlySlower = 1.05;
CpuPaths faster_paths(const IsaFeatures& features, const PathTimes& times);

// Times each use for which `features` holds two paths, but for tolerant weights, on the calling thread: some
// milliseconds.
PathTimes measure_paths(const IsaFeatures& features);
// That use, too, against what `times` leave for the others.
PathTimes with_tolerant_products(const IsaFeatures& features, PathTimes times);

}  // namespace pkv
