// The instruction-set paths of the CPU kernels. Sources that are compiled once per set include it, so it holds no code.
#pragma once

#include <cstdint>

namespace pkv {

enum class Isa : uint8_t { kScalar, kAvx2, kAvx512, kAvx512Vnni, kAvx512Bf16, kAmxBf16 };

// The kernels of one kind on one path, as a table of pointers: defined by the source that is compiled for the path.
template <typename Kernels, Isa>
struct PathTable {
  static const Kernels kernels;
};

}  // namespace pkv
