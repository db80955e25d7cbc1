// The decision between two measured paths.
#include "kernels/cpu/path_choice.h"

#include <string_view>

#include "absl/strings/str_cat.h"

namespace pkv {
namespace {

struct Use {
  const char* name;
  const char* higher;
  const char* lower;
  double allowed = kClearlySlower;  // of the lower path's time, before that is taken
};

// Whether the lower path serves a use. Adds what was found to `measured`.
bool take_lower(const Use& use, const PathTime& time, std::string& measured) {
  if (!(time.higher > 0 && time.lower > 0)) return false;
  absl::StrAppend(&measured, measured.empty() ? "" : ", ", use.name, " ");
  if (time.differs) {
    absl::StrAppend(&measured, use.lower, " (", use.higher, " computes something else)");
    return true;
  }
  const bool lower = time.higher > use.allowed * time.lower;
  const double ratio = lower ? time.higher / time.lower : time.lower / time.higher;
  const auto hundredths = static_cast<int64_t>(ratio * 100 + 0.5);
  absl::StrAppend(&measured, lower ? use.lower : use.higher, " (", hundredths / 100, ".", hundredths % 100 / 10,
                  hundredths % 10, "x ", lower ? use.higher : use.lower, ")");
  return lower;
}

const char* below_tiles(const IsaFeatures& features) { return features.bf16 ? "bf16" : "avx512"; }

const char* of_prompts(const IsaFeatures& features) { return features.amx ? "amx" : below_tiles(features); }

}  // namespace

CpuPaths highest_paths(const IsaFeatures& features) { return faster_paths(features, {}); }

CpuPaths faster_paths(const IsaFeatures& features, const PathTimes& times) {
  CpuPaths paths{.features = features,
                 .prompt_products = features,
                 .prompt_attention = features,
                 .decode_products = features,
                 .tolerant_in_8_bits = features.vnni};
  if (take_lower({"prompt products", "bf16", "avx512"}, times.prompt_products, paths.measured)) {
    paths.prompt_products.bf16 = false;
  }
  if (take_lower({"prompt attention", "bf16", "avx512"}, times.prompt_attention, paths.measured)) {
    paths.prompt_attention.bf16 = false;
  }
  if (take_lower({"decode products", "vnni", "avx2"}, times.decode_products, paths.measured)) {
    paths.decode_products.vnni = false;
  }
  if (take_lower({"prompt products", "amx", below_tiles(paths.prompt_products)}, times.tile_products, paths.measured)) {
    paths.prompt_products.amx = false;
  }
  if (take_lower({"prompt attention", "amx", below_tiles(paths.prompt_attention)}, times.tile_attention,
                 paths.measured)) {
    paths.prompt_attention.amx = false;
  }
  const Use tolerant{"tolerant prompt products", "vnni", of_prompts(paths.prompt_products), 1 / kClearlySlower};
  if (take_lower(tolerant, times.tolerant_products, paths.measured)) paths.tolerant_in_8_bits = false;
  return paths;
}

}  // namespace pkv
