// Memory runs out at any allocation while an error with details is made, read or put on the wire: whoever does so gets
// std::bad_alloc, and the whole error as soon as there is memory.
#include <gmock/gmock.h>

#include <map>
#include <new>
#include <string>

#include "absl/strings/str_cat.h"
#include "server/api/errors.h"
#include "server/rpc/grpc_status.h"
#include "server/status/field_error.h"
#include "tests/support/failing_new.h"

namespace pkv {
namespace {

class ErrorAllocationTest : public ::testing::Test {
 protected:
  // More entries than a map of protobuf has room for at first.
  ErrorAllocationTest() {
    for (int i = 0; i < kEntries; ++i) detail_.metadata[absl::StrCat("a key of its own, ", i)] = std::string(40, 'v');
  }
  // What `work` gives once it has failed at each of its allocations.
  template <typename Work>
  auto run_out_everywhere(const Work& work) {
    int64_t at = 0;
    while (true) {
      try {
        test::fail_allocations(at++, 1);
        auto result = work();
        const bool came = test::failures_left() == 0;
        test::fail_allocations(0, 0);
        if (came) continue;
        EXPECT_GT(at, 1);
        return result;
      } catch (const std::bad_alloc&) {
      }
    }
  }

  static constexpr int kEntries = 40;
  ErrorDetail detail_{.reason = kCacheNeverFits,
                      .field = "cache_policy.budget.tokens",
                      .description = "is more than there is room for",
                      .retry_delay = absl::Seconds(3)};
};

TEST_F(ErrorAllocationTest, WhileItIsMade) {
  const absl::Status status = run_out_everywhere([this] { return make_error(detail_); });
  EXPECT_EQ(error_reason(status), kCacheNeverFits);
  EXPECT_EQ(error_metadata(status), detail_.metadata);
  EXPECT_EQ(error_retry_delay(status), absl::Seconds(3));
  EXPECT_EQ(field_error_of(status)->field, detail_.field);
}

TEST_F(ErrorAllocationTest, WhileItIsRead) {
  const absl::Status status = make_error(detail_);
  EXPECT_EQ(run_out_everywhere([&] { return error_metadata(status); }), detail_.metadata);
  EXPECT_EQ(run_out_everywhere([&] { return error_reason(status); }), kCacheNeverFits);
}

TEST_F(ErrorAllocationTest, WhileItIsPutOnTheWire) {
  const absl::Status status = make_error(detail_);
  const grpc::Status told = run_out_everywhere([&] { return to_grpc_status(status); });
  EXPECT_EQ(told.error_details(), to_grpc_status(status).error_details());
}

}  // namespace
}  // namespace pkv
