// Numbers in memory that C++ has no type for. Holds no code, for sources that are compiled once per instruction set
// include it.
#pragma once

#include <cstdint>

namespace pkv {

struct Bfloat16 {  // the upper half of a float
  uint16_t bits;
};

struct NibblePair {  // two integers of -8 .. 7, the first in the low half
  uint8_t bits;
};

// How many numbers one T holds.
template <typename T>
inline constexpr int32_t kNumbersIn = 1;
template <>
inline constexpr int32_t kNumbersIn<NibblePair> = 2;

}  // namespace pkv
