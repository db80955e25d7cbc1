// Which shapes of attention a backend says it can compute. That it can is shown by the cases of attend at these ends.
#include <gtest/gtest.h>

#include "kernels/backend.h"
#include "tests/kernels/backends_under_test.h"

namespace pkv {
namespace {

TEST(SupportsTest, CpuTakesHeadSizesInEightsAndGroupsUpTo64) {
  const struct {
    AttentionShape shape;
    bool supported;
  } cases[] = {
      {{.q_heads = 9, .kv_heads = 3, .head_dim = 64}, true},  {{.q_heads = 64, .kv_heads = 1, .head_dim = 8}, true},
      {{.q_heads = 2, .kv_heads = 1, .head_dim = 256}, true}, {{.q_heads = 4, .kv_heads = 4, .head_dim = 80}, true},
      {{.q_heads = 4, .kv_heads = 2, .head_dim = 12}, false}, {{.q_heads = 4, .kv_heads = 2, .head_dim = 1}, false},
      {{.q_heads = 7, .kv_heads = 2, .head_dim = 64}, false}, {{.q_heads = 65, .kv_heads = 1, .head_dim = 64}, false},
  };
  const std::vector<BackendUnderTest> backends = backends_under_test({1});
  ASSERT_FALSE(backends.empty());
  for (const BackendUnderTest& tested : backends) {
    for (const auto& [shape, supported] : cases) {
      SCOPED_TRACE(testing::Message() << tested.name << ": " << shape.q_heads << " query heads, " << shape.kv_heads
                                      << " KV heads of " << shape.head_dim);
      const absl::Status status = tested.backend->supports(shape);
      EXPECT_EQ(status.code(), supported ? absl::StatusCode::kOk : absl::StatusCode::kUnimplemented) << status;
    }
  }
}

TEST(SupportsTest, ReferenceTakesWhateverAttentionIs) {
  const auto reference = *make_backend({.device = "reference"});
  EXPECT_TRUE(reference->supports({.q_heads = 65, .kv_heads = 1, .head_dim = 12}).ok());
  EXPECT_TRUE(reference->supports({.q_heads = 3, .kv_heads = 3, .head_dim = 2}).ok());
}

}  // namespace
}  // namespace pkv
