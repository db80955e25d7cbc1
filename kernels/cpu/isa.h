// Which instruction sets the CPU kernels may use. VNNI and BF16 are independent: a CPU may have either without the
// other. AMX implies BF16, which everything but tiles' products is done with.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "kernels/cpu/isa_path.h"

namespace pkv {

// Each includes what the CPU and the operating system support; avx512 implies avx2, vnni and bf16 imply avx512.
struct IsaFeatures {
  bool avx2 = false;    // AVX2, FMA, F16C
  bool avx512 = false;  // AVX-512 F, BW, VL, DQ
  bool vnni = false;    // AVX512_VNNI
  bool bf16 = false;    // AVX512_BF16
  bool amx = false;     // AMX_TILE, AMX_BF16, granted to this process
  bool operator==(const IsaFeatures&) const = default;
};

IsaFeatures detect_isa();

// `name` as in BackendOptions::isa: the features of `machine` up to and including the named path; all of them when
// empty. INVALID_ARGUMENT for an unknown name, FAILED_PRECONDITION where `machine` lacks the named path.
absl::StatusOr<IsaFeatures> cap_isa(const IsaFeatures& machine, std::string_view name);

// "avx2 avx512 vnni bf16 amx", "scalar".
std::string describe_isa(const IsaFeatures& features);

}  // namespace pkv
