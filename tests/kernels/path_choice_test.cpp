// Which paths are taken for which measured times, that a path which computes something else is found, and that nothing
// is measured where a path is named.
#include "kernels/cpu/path_choice.h"

#include <string>

#include "gtest/gtest.h"
#include "kernels/backend.h"
#include "kernels/cpu/path_measurement.h"

namespace pkv {
namespace {

constexpr IsaFeatures kAll = {.avx2 = true, .avx512 = true, .vnni = true, .bf16 = true};
constexpr IsaFeatures kTiles = {.avx2 = true, .avx512 = true, .vnni = true, .bf16 = true, .amx = true};
constexpr IsaFeatures kNoBf16 = {.avx2 = true, .avx512 = true, .vnni = true};
constexpr IsaFeatures kNoVnni = {.avx2 = true, .avx512 = true, .bf16 = true};

TEST(PathChoiceTest, TakesTheHighestPathsWhereNothingWasMeasured) {
  const CpuPaths paths = highest_paths(kAll);
  EXPECT_EQ(paths.features, kAll);
  EXPECT_EQ(paths.prompt_products, kAll);
  EXPECT_EQ(paths.prompt_attention, kAll);
  EXPECT_EQ(paths.decode_products, kAll);
  EXPECT_TRUE(paths.tolerant_in_8_bits);
  EXPECT_FALSE(highest_paths(kNoVnni).tolerant_in_8_bits);
  EXPECT_EQ(paths.measured, "");
}

// A Sapphire Rapids machine read prompts at 710 tokens a second with bf16 and at 1,090 without.
TEST(PathChoiceTest, TakesTheLowerPathWhereItIsFaster) {
  const CpuPaths paths = faster_paths(kAll, {.prompt_products = {.higher = 1.0 / 710, .lower = 1.0 / 1090}});
  EXPECT_EQ(paths.prompt_products, kNoBf16);
  EXPECT_EQ(paths.prompt_attention, kAll) << "each use by itself";
  EXPECT_EQ(paths.decode_products, kAll);
  EXPECT_EQ(paths.features, kAll);
  EXPECT_EQ(paths.measured, "prompt products avx512 (1.54x bf16)");
}

TEST(PathChoiceTest, EachUseHasItsOwnMeasurement) {
  EXPECT_EQ(faster_paths(kAll, {.prompt_attention = {2, 1}}).prompt_attention, kNoBf16);
  EXPECT_EQ(faster_paths(kAll, {.decode_products = {2, 1}}).decode_products, kNoVnni);
  const CpuPaths paths =
      faster_paths(kAll, {.prompt_products = {1, 2}, .prompt_attention = {1, 1.304}, .decode_products = {3, 1}});
  EXPECT_EQ(paths.prompt_products, kAll);
  EXPECT_EQ(paths.decode_products, kNoVnni);
  EXPECT_EQ(
      paths.measured,
      "prompt products bf16 (2.00x avx512), prompt attention bf16 (1.30x avx512), decode products avx2 (3.00x vnni)");
}

TEST(PathChoiceTest, TilesAreTakenWhereTheyAreFasterAndRight) {
  const CpuPaths paths =
      faster_paths(kTiles, {.prompt_products = {1.5, 1}, .tile_products = {1, 3}, .tile_attention = {2, 1}});
  EXPECT_TRUE(paths.prompt_products.amx);
  EXPECT_EQ(paths.prompt_attention, kAll);
  EXPECT_EQ(
      paths.measured,
      "prompt products avx512 (1.50x bf16), prompt products amx (3.00x avx512), prompt attention bf16 (2.00x amx)");
  const CpuPaths wrong = faster_paths(kTiles, {.tile_products = {1, 3, true}});
  EXPECT_EQ(wrong.prompt_products, kAll);
  EXPECT_EQ(wrong.measured, "prompt products bf16 (amx computes something else)");
}

TEST(PathChoiceTest, EightBitsAreTakenWhereTheyAreClearlyFasterAndRight) {
  const CpuPaths paths = faster_paths(kAll, {.prompt_products = {1, 2}, .tolerant_products = {1, 1.7}});
  EXPECT_TRUE(paths.tolerant_in_8_bits);
  EXPECT_EQ(paths.measured, "prompt products bf16 (2.00x avx512), tolerant prompt products vnni (1.70x bf16)");
  EXPECT_TRUE(faster_paths(kAll, {.tolerant_products = {1, 1.051}}).tolerant_in_8_bits);
  EXPECT_FALSE(faster_paths(kAll, {.tolerant_products = {1, 1.049}}).tolerant_in_8_bits);
  EXPECT_EQ(faster_paths(kTiles, {.tolerant_products = {3, 2}}).measured, "tolerant prompt products amx (1.50x vnni)");
  EXPECT_EQ(faster_paths(kNoBf16, {.tolerant_products = {1, 4}}).measured,
            "tolerant prompt products vnni (4.00x avx512)");
  const CpuPaths wrong = faster_paths(kAll, {.tolerant_products = {1, 2, true}});
  EXPECT_FALSE(wrong.tolerant_in_8_bits);
  EXPECT_EQ(wrong.measured, "tolerant prompt products bf16 (vnni computes something else)");
}

TEST(PathChoiceTest, TolerantProductsThatForgetAPartOfTheDepthAreFound) {
  if (!detect_isa().vnni) GTEST_SKIP() << "this machine has no vnni path";
  const LinearKernels plain = select_linear_kernels(highest_paths({}));
  LinearKernels kernels = select_linear_kernels(highest_paths(detect_isa()));
  EXPECT_FALSE(measure_products(Phase::kPrefill, kernels, plain).differs);
  kernels.int8_gemm.multiply = [](const GemmTile& tile) {
    GemmTile shorter = tile;
    shorter.depth -= kGemmStep;
    PathTable<GemmKernels, Isa::kAvx512Vnni>::kernels.multiply(shorter);
  };
  EXPECT_TRUE(measure_products(Phase::kPrefill, kernels, plain).differs);
}

TEST(PathChoiceTest, WhatIsMeasuredAgrees) {
  const PathTimes times = with_tolerant_products(detect_isa(), measure_paths(detect_isa()));
  for (const PathTime& time : {times.prompt_products, times.prompt_attention, times.decode_products,
                               times.tile_products, times.tile_attention, times.tolerant_products}) {
    EXPECT_FALSE(time.differs);
  }
}

const PanelKernels& plain_panels() { return PathTable<AttentionKernels, Isa::kScalar>::kernels.panel; }

TEST(PathChoiceTest, AttentionThatMixesUpRowsOrEntriesIsFound) {
  EXPECT_FALSE(measure_attention(plain_panels(), plain_panels()).differs);
  PanelKernels rows = plain_panels();
  rows.pack_queries = [](const float* const* from, int32_t count, int32_t head_dim, float scale, void* out) {
    ASSERT_EQ(count, 4);
    const float* const swapped[] = {from[0], from[1], from[3], from[2]};
    plain_panels().pack_queries(swapped, count, head_dim, scale, out);
  };
  EXPECT_TRUE(measure_attention(rows, plain_panels()).differs);
  PanelKernels entries = plain_panels();
  entries.pack_values = [](const LanePages& pages, int32_t, int32_t count, int32_t, void* out) {
    plain_panels().pack_values(pages, 0, count, 0, out);
    plain_panels().pack_values(pages, 64, 32, 96, out);
    plain_panels().pack_values(pages, 96, 32, 64, out);
  };
  EXPECT_TRUE(measure_attention(entries, plain_panels()).differs);
  PanelKernels limits = plain_panels();
  limits.attend = [](const Panel& panel, const PanelState& state) {
    const int32_t all[] = {panel.count, panel.count, panel.count, panel.count};
    Panel unlimited = panel;
    unlimited.limits = all;
    plain_panels().attend(unlimited, state);
  };
  EXPECT_TRUE(measure_attention(limits, plain_panels()).differs);
}

TEST(PathChoiceTest, ProductsOfTilesThatForgetAPartOfTheDepthAreFound) {
  if (!detect_isa().amx) GTEST_SKIP() << "this machine has no bf16 path, which the model of tiles needs";
  const LinearKernels plain = select_linear_kernels(highest_paths({}));
  LinearKernels tiles = select_linear_kernels(highest_paths(detect_isa()));
  tiles.int8_gemm = {};
  EXPECT_FALSE(measure_products(Phase::kPrefill, tiles, plain).differs);
  tiles.bf16.multiply = [](const GemmTile& tile) {
    GemmTile afresh = tile;
    afresh.first = true;
    PathTable<GemmKernels, Isa::kAmxBf16>::kernels.multiply(afresh);
  };
  EXPECT_TRUE(measure_products(Phase::kPrefill, tiles, plain).differs);
}

TEST(PathChoiceTest, NearTiesGoToTheHigherPath) {
  EXPECT_TRUE(faster_paths(kAll, {.prompt_products = {1, 1}}).prompt_products.bf16);
  EXPECT_TRUE(faster_paths(kAll, {.prompt_products = {1.049, 1}}).prompt_products.bf16);
  EXPECT_FALSE(faster_paths(kAll, {.prompt_products = {1.051, 1}}).prompt_products.bf16);
}

TEST(PathChoiceTest, MeasuresWhatHasTwoPaths) {
  EXPECT_EQ(measure_paths({.avx2 = true, .avx512 = true}).prompt_products.higher, 0);
  if (!detect_isa().bf16) GTEST_SKIP() << "this machine has no bf16 path";
  const PathTimes times = with_tolerant_products(kNoVnni, measure_paths(kNoVnni));
  EXPECT_GT(times.prompt_products.higher, 0);
  EXPECT_GT(times.prompt_products.lower, 0);
  EXPECT_GT(times.prompt_attention.higher, 0);
  EXPECT_GT(times.prompt_attention.lower, 0);
  EXPECT_EQ(times.decode_products.higher, 0) << "no vnni, nothing to choose";
  EXPECT_EQ(times.tolerant_products.higher, 0);
  const IsaFeatures vnni_alone{.avx2 = true, .avx512 = true, .vnni = detect_isa().vnni};
  const PathTimes no_bf16 = with_tolerant_products(vnni_alone, measure_paths(vnni_alone));
  EXPECT_EQ(no_bf16.tolerant_products.higher > 0, detect_isa().vnni);
}

TEST(PathChoiceTest, BackendsMeasureOnlyWhereNoPathIsNamed) {
  const auto description = [](const BackendOptions& options) { return (*make_backend(options))->description(); };
  const auto measured = [&](const BackendOptions& options) {
    return description(options).find("; measured: ") != std::string::npos;
  };
  EXPECT_EQ(measured({.device = "cpu"}), detect_isa().bf16 || detect_isa().vnni);
  EXPECT_EQ(description({.device = "cpu"}), description({.device = "cpu"})) << "measured once a process";
  EXPECT_FALSE(measured({.device = "cpu", .exact = true}));
  const auto tolerant = [&](bool fast) {
    return description({.device = "cpu", .fast = fast}).find("tolerant prompt products") != std::string::npos;
  };
  EXPECT_FALSE(tolerant(false)) << "only the fast mode makes use of it";
  EXPECT_EQ(tolerant(true), detect_isa().vnni);
  EXPECT_FALSE(measured({.device = "cpu", .isa = "scalar"}));
  EXPECT_FALSE(detect_isa().bf16 && measured({.device = "cpu", .isa = "avx512_bf16"}));
}

}  // namespace
}  // namespace pkv
