// Memory contracts over the wire: every policy accounts for what it held, estimates are what is billed, and policies
// are compared with a baseline.
#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>

#include "kernels/entry_format.h"
#include "tests/integration/server_fixture.h"

namespace pkv {
namespace {

// Keys, values, layers, heads, head size, bytes: of one token of the tiny model.
constexpr int32_t kHeadDim = 16;
constexpr uint64_t kTokenBytes = 2 * 2 * 2 * kHeadDim * 2;

std::string long_prompt() {
  std::string prompt;
  for (int i = 0; i < 60; ++i) prompt += "word" + std::to_string(i) + " ";
  return prompt;
}

pb::CachePolicy cache_policy(const std::string& text) {
  pb::CachePolicy policy;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &policy)) << text;
  return policy;
}

class ContractTest : public ServerTest {
 protected:
  void SetUp() override { start_and_load(); }
  pb::GenerateRequest request_with(const std::string& policy, uint32_t max_tokens) const {
    pb::GenerateRequest wish = request(long_prompt(), max_tokens);
    *wish.mutable_cache_policy() = cache_policy(policy);
    return wish;
  }
  grpc::Status estimate(const pb::EstimateCacheRequest& request, pb::EstimateCacheResponse& response) {
    grpc::ClientContext context;
    return generation_->EstimateCache(&context, request, &response);
  }
  grpc::Status compare(const pb::CompareRequest& request, pb::CompareResponse& response) {
    grpc::ClientContext context;
    return generation_->Compare(&context, request, &response);
  }
};

class EveryPolicy : public ContractTest, public ::testing::WithParamInterface<std::string> {};

TEST_P(EveryPolicy, AccountsForItsBytesAsEstimated) {
  for (const std::string scope : {"PROMPT", "TOTAL"}) {
    SCOPED_TRACE(scope);
    const std::string budget =
        GetParam() == "full" ? std::string() : " budget { tokens: 40 scope: BUDGET_SCOPE_" + scope + " }";
    const pb::GenerateRequest wish = request_with(GetParam() + " {}" + budget, 50);
    pb::GenerateResponse reply;
    const grpc::Status status = generate(wish, reply);
    ASSERT_TRUE(status.ok()) << status.error_message();
    const pb::CacheReport& report = reply.cache();
    EXPECT_EQ(report.policy_name(), GetParam());
    EXPECT_EQ(report.logical_tokens(), reply.usage().total_tokens() - 1);
    EXPECT_EQ(report.full_bytes(), report.logical_tokens() * kTokenBytes);
    // An entry that is held has the bytes of its format, one that is not those of f16, as all of `full_bytes`.
    const uint64_t held_entries = report.full_bytes() * 4 / kTokenBytes - report.evicted_entries();
    const bool codes = report.effective_policy().kv_dtype() == pb::KV_DTYPE_K8V4;
    const uint64_t entry_bytes = codes ? entry_format(KvDtype::kK8V4).entry_bytes(kHeadDim) : kTokenBytes / 4;
    EXPECT_EQ(report.held_bytes(), held_entries * entry_bytes);
    EXPECT_GE(report.allocated_bytes(), report.held_bytes());
    EXPECT_GE(report.peak_bytes(), report.allocated_bytes() + report.auxiliary_bytes());
    EXPECT_EQ(report.saved_bytes(), static_cast<int64_t>(report.full_bytes()) -
                                        static_cast<int64_t>(report.allocated_bytes() + report.auxiliary_bytes()));

    pb::EstimateCacheRequest question;
    question.set_prompt_tokens(reply.usage().prompt_tokens());
    question.set_max_tokens(50);
    *question.mutable_cache_policy() = wish.cache_policy();
    pb::EstimateCacheResponse estimated;
    ASSERT_TRUE(estimate(question, estimated).ok());
    EXPECT_EQ(estimated.effective_policy().SerializeAsString(), report.effective_policy().SerializeAsString());
    EXPECT_EQ(estimated.full_bytes(), report.full_bytes());
    EXPECT_EQ(estimated.budget_tokens(), report.budget_tokens());
    EXPECT_GE(estimated.peak_bytes(), report.peak_bytes());
    // Where the lanes of a layer share, pages are reserved for the division that needs most.
    const bool shares = GetParam().starts_with("ada_");
    const double slack = shares ? 1.5 : 1.01;
    const uint64_t billed = report.allocated_bytes() + report.auxiliary_bytes();
    EXPECT_LE(static_cast<double>(estimated.peak_bytes()), slack * static_cast<double>(report.peak_bytes()));
    EXPECT_GE(estimated.steady_bytes(), billed);
    EXPECT_LE(estimated.steady_bytes(), shares ? 3 * billed / 2 : billed);
    EXPECT_TRUE(estimated.admissible_now() && estimated.admissible_ever());
    EXPECT_EQ(estimated.layers_size(), 2);
  }
}

INSTANTIATE_TEST_SUITE_P(Contract, EveryPolicy,
                         ::testing::Values("full", "streaming_llm", "h2o", "snapkv", "pyramidkv", "l2norm", "tova",
                                           "keydiff", "random", "ada_snapkv", "ada_pyramidkv", "funnel"));

TEST_F(ContractTest, ABoundInBytesHoldsAndTheSmallestIsNamed) {
  pb::GenerateResponse reply;
  const grpc::Status refused = generate(request_with("pyramidkv {} budget { bytes: 5000 }", 50), reply);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(reason(refused), "CACHE_NEVER_FITS");
  EXPECT_THAT(refused.error_message(), ::testing::StartsWith("cache_policy.budget.bytes: "));
  const uint64_t smallest = std::stoull(metadata(refused).at("smallest_budget_bytes"));
  const std::string bound = "pyramidkv {} budget { bytes: ";
  EXPECT_EQ(reason(generate(request_with(bound + std::to_string(smallest - 1) + " }", 50), reply)), "CACHE_NEVER_FITS");
  const grpc::Status status = generate(request_with(bound + std::to_string(smallest) + " }", 50), reply);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_LE(reply.cache().peak_bytes(), smallest);
  EXPECT_TRUE(reply.cache().compressed());
}

TEST_F(ContractTest, RecallOutOfReachIsRefusedWithItsFigures) {
  pb::GenerateResponse reply;
  pb::GenerateRequest wish = request_with("snapkv {} budget { min_recall: 0.999 max_bytes: 1 }", 4);
  pb::CacheBudget& budget = *wish.mutable_cache_policy()->mutable_budget();
  const grpc::Status misfit = generate(wish, reply);
  EXPECT_EQ(reason(misfit), "CACHE_NEVER_FITS");
  EXPECT_THAT(misfit.error_message(), ::testing::StartsWith("cache_policy.budget.max_bytes: "));
  budget.set_max_bytes(std::stoull(metadata(misfit).at("smallest_budget_bytes")));
  const grpc::Status status = generate(wish, reply);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  ASSERT_EQ(reason(status), "RECALL_NOT_REACHED");
  EXPECT_LT(std::stod(metadata(status).at("reached")), 0.999);
  EXPECT_EQ(metadata(status).at("layer"), "0");
  ASSERT_TRUE(eventually_idle());
  budget.set_allow_shortfall(true);
  const grpc::Status served = generate(wish, reply);
  ASSERT_TRUE(served.ok()) << served.error_message();
  EXPECT_LT(reply.cache().recall().min(), 0.999);
  EXPECT_LE(reply.cache().peak_bytes(), budget.max_bytes());
}

TEST_F(ContractTest, EstimatesOfWhatNeverFitsAreNoErrors) {
  start_and_load([](Config& config) { config.cache.pool_bytes = 1 << 16; });
  pb::EstimateCacheRequest question;
  question.set_prompt_tokens(4000);
  pb::EstimateCacheResponse estimated;
  ASSERT_TRUE(estimate(question, estimated).ok());
  EXPECT_FALSE(estimated.admissible_ever());
  EXPECT_GT(estimated.peak_bytes(), uint64_t{1} << 16);
  EXPECT_EQ(estimated.smallest_budget_tokens(), 0u);
  *question.mutable_cache_policy() = cache_policy("snapkv {} budget { tokens: 64 }");
  ASSERT_TRUE(estimate(question, estimated).ok());
  EXPECT_EQ(estimated.smallest_budget_tokens(), 9u);
  EXPECT_GT(estimated.smallest_budget_bytes(), uint64_t{1} << 16);
  question.set_prompt_tokens(0);
  EXPECT_EQ(estimate(question, estimated).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(ContractTest, Comparison) {
  pb::CompareRequest wish;
  *wish.mutable_request() = request(long_prompt(), 12);
  *wish.add_policies() = cache_policy("full {}");
  *wish.add_policies() = cache_policy("pyramidkv {} budget { tokens: 20 }");
  pb::CompareResponse reply;
  const grpc::Status status = compare(wish, reply);
  ASSERT_TRUE(status.ok()) << status.error_message();
  pb::GenerateResponse alone;
  ASSERT_TRUE(generate(wish.request(), alone).ok());
  EXPECT_EQ(reply.baseline().choices(0).text(), alone.choices(0).text());
  EXPECT_EQ(reply.baseline().cache().policy_name(), "full");
  ASSERT_EQ(reply.comparisons_size(), 2);
  for (const pb::Comparison& comparison : reply.comparisons()) {
    ASSERT_EQ(comparison.kl_size(), 12);
    EXPECT_EQ(comparison.kl(0), 0.0);
  }
  const pb::Comparison &same = reply.comparisons(0), &cut = reply.comparisons(1);
  EXPECT_EQ(same.kl_mean(), 0.0);
  EXPECT_EQ(same.top1_agreement(), 1.0);
  EXPECT_EQ(same.first_divergence(), -1);
  EXPECT_EQ(same.text(), alone.choices(0).text());
  EXPECT_GT(cut.kl_mean(), 0.0);
  EXPECT_EQ(cut.cache().policy_name(), "pyramidkv");
  EXPECT_EQ(cut.cache().budget_tokens(), 20u);
  EXPECT_TRUE(cut.cache().compressed());
  pb::GenerateRequest own = wish.request();
  *own.mutable_cache_policy() = wish.policies(1);
  pb::GenerateResponse own_answer;
  ASSERT_TRUE(generate(own, own_answer).ok());
  EXPECT_EQ(cut.text(), own_answer.choices(0).text());
  EXPECT_TRUE(eventually_idle());
}

TEST_F(ContractTest, ComparisonsCanBeGivenUp) {
  pb::CompareRequest wish;
  *wish.mutable_request() = request("hello", kEndless);
  *wish.add_policies() = cache_policy("tova {} budget { tokens: 20 }");
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(200));
  pb::CompareResponse reply;
  EXPECT_EQ(generation_->Compare(&context, wish, &reply).error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_TRUE(eventually_idle());
  wish.mutable_request()->mutable_sampling()->set_temperature(1);
  const grpc::Status status = compare(wish, reply);
  EXPECT_EQ(reason(status), "BAD_SAMPLING");
  EXPECT_THAT(status.error_message(), ::testing::StartsWith("request.sampling.temperature: "));
}

}  // namespace
}  // namespace pkv
