// Intel's tile registers (AMX): whether this process may use them.
#pragma once

namespace pkv {

// Whether the CPU has AMX-TILE and AMX-BF16, the operating system saves tiles, and Linux has granted this process their
// use, which this asks for (arch_prctl, ARCH_REQ_XCOMP_PERM). All its threads share the grant; Linux refuses it while
// one has an alternative signal stack that is too small to save tiles on.
bool request_amx_bf16();

// Whether the kernels that are compiled for tiles can run (tiles.h), on a CPU with AVX512_BF16.
bool tiles_usable();

}  // namespace pkv
