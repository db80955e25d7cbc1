// What a call makes of the way its request ends.
#include "server/rpc/generation_call.h"

#include "server/policy/recall_shortfall.h"
#include "tests/unit/api/api_fixture.h"

namespace pkv {
namespace {

// A call whose RPC is the test itself.
class WatchedCall final : public GenerationCall {
 public:
  using GenerationCall::GenerationCall;
  absl::Status error;

 private:
  void advance() override { error = error_; }
};

class GenerationCallTest : public ApiTest {
 protected:
  absl::Status error_after(const absl::Status& status) {
    WatchedCall call(served_, *state_, {.prepared = *engine_.prepare(std::make_shared<Request>())}, {});
    call.on_error(status);
    return call.error;
  }
  uint64_t rejections() const { return state_->metrics().snapshot().rejected.at("RECALL_NOT_REACHED"); }
};

TEST_F(GenerationCallTest, AShortfallOfRecallNamesItsFigures) {
  EXPECT_EQ(rejections(), 0u);
  const DecodedError error =
      decode_error(error_after(recall_not_reached({.reached = 0.25, .layer = 3}, /*min_recall_millionths=*/900'000)));
  EXPECT_EQ(error.code, absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(error.reason, "RECALL_NOT_REACHED");
  EXPECT_EQ(error.field, "cache_policy.budget.min_recall");
  EXPECT_EQ(std::stod(error.metadata.at("reached")), 0.25);
  EXPECT_EQ(error.metadata.at("layer"), "3");
  EXPECT_EQ(rejections(), 1u);
}

TEST_F(GenerationCallTest, OtherErrorsStayAsTheyAre) {
  EXPECT_EQ(error_after(absl::CancelledError("gone")), absl::CancelledError("gone"));
  EXPECT_EQ(rejections(), 0u);
}

}  // namespace
}  // namespace pkv
