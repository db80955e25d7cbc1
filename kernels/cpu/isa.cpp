// Detection of instruction sets and the names users give them.
#include "kernels/cpu/isa.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <optional>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/amx.h"

namespace pkv {
namespace {

struct IsaName {
  std::string_view name;
  Isa isa;
};
constexpr IsaName kIsaNames[] = {
    {"scalar", Isa::kScalar},          {"avx2", Isa::kAvx2},
    {"avx512", Isa::kAvx512},          {"avx512_vnni", Isa::kAvx512Vnni},
    {"avx512_bf16", Isa::kAvx512Bf16}, {"amx_bf16", Isa::kAmxBf16},
};

std::optional<Isa> parse_isa(std::string_view name) {
  for (const IsaName& entry : kIsaNames) {
    if (entry.name == name) return entry.isa;
  }
  return std::nullopt;
}

bool has_isa(const IsaFeatures& machine, Isa isa) {
  switch (isa) {
    case Isa::kScalar:
      return true;
    case Isa::kAvx2:
      return machine.avx2;
    case Isa::kAvx512:
      return machine.avx512;
    case Isa::kAvx512Vnni:
      return machine.vnni;
    case Isa::kAvx512Bf16:
      return machine.bf16;
    case Isa::kAmxBf16:
      return machine.amx;
  }
  return false;
}

#if defined(__x86_64__)
// Older clangs do not know F16C by name.
bool has_f16c() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}
#endif

}  // namespace

IsaFeatures detect_isa() {
  IsaFeatures features;
#if defined(__x86_64__)
  __builtin_cpu_init();  // its avx flags take the operating system's saved state (XCR0) into account
  features.avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
  features.avx512 = features.avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  features.vnni = features.avx512 && __builtin_cpu_supports("avx512vnni");
  features.bf16 = features.avx512 && __builtin_cpu_supports("avx512bf16");
  features.amx = features.bf16 && tiles_usable();
#endif
  return features;
}

absl::StatusOr<IsaFeatures> cap_isa(const IsaFeatures& machine, std::string_view name) {
  if (name.empty()) return machine;
  const std::optional<Isa> isa = parse_isa(name);
  if (!isa.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat("unknown instruction-set path \"", absl::string_view(name.data(), name.size()),
                     "\"; known: scalar, avx2, avx512, avx512_vnni, avx512_bf16, amx_bf16"));
  }
  if (!has_isa(machine, *isa)) {
    return absl::FailedPreconditionError(absl::StrCat("this machine lacks the instruction-set path \"",
                                                      absl::string_view(name.data(), name.size()),
                                                      "\"; it has: ", describe_isa(machine)));
  }
  IsaFeatures features;
  features.avx2 = machine.avx2 && *isa >= Isa::kAvx2;
  features.avx512 = machine.avx512 && *isa >= Isa::kAvx512;
  features.vnni = machine.vnni && *isa >= Isa::kAvx512Vnni;
  features.bf16 = machine.bf16 && *isa >= Isa::kAvx512Bf16;
  features.amx = machine.amx && *isa >= Isa::kAmxBf16;
  return features;
}

std::string describe_isa(const IsaFeatures& features) {
  if (!features.avx2) return "scalar";
  std::string text = "avx2";
  if (features.avx512) text += " avx512";
  if (features.vnni) text += " vnni";
  if (features.bf16) text += " bf16";
  if (features.amx) text += " amx";
  return text;
}

}  // namespace pkv
