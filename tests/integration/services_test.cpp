// The other methods: tokenising, models, policies, state, reflection.
#include <gmock/gmock.h>

#include "tests/integration/server_fixture.h"

namespace pkv {
namespace {

class ServicesTest : public ServerTest {
 protected:
  pb::TokenizeResponse tokenize(const pb::TokenizeRequest& request) {
    grpc::ClientContext context;
    pb::TokenizeResponse response;
    const grpc::Status status = generation_->Tokenize(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  }
};

TEST_F(ServicesTest, TokensAndBack) {
  start_and_load();
  pb::TokenizeRequest request;
  request.set_text("hello <|im_end|> w\xC3\xB6rld");
  const pb::TokenizeResponse tokens = tokenize(request);
  EXPECT_EQ(tokens.max_model_len(), static_cast<uint32_t>(kContext));
  EXPECT_THAT(tokens.token_ids(), ::testing::Contains(test::kTinyEndToken));
  grpc::ClientContext context;
  pb::DetokenizeRequest back;
  *back.mutable_token_ids() = tokens.token_ids();
  pb::DetokenizeResponse text;
  ASSERT_TRUE(generation_->Detokenize(&context, back, &text).ok());
  EXPECT_EQ(text.text(), request.text());
}

TEST_F(ServicesTest, ChatsAreRendered) {
  start_and_load();
  pb::TokenizeRequest request;
  pb::ChatMessage& message = *request.mutable_chat()->add_messages();
  message.set_role("user");
  message.set_content("hi");
  const pb::TokenizeResponse with = tokenize(request);
  EXPECT_THAT(with.rendered_text(), ::testing::HasSubstr("<|im_start|>user\nhi<|im_end|>"));
  EXPECT_THAT(with.rendered_text(), ::testing::EndsWith("<|im_start|>assistant\n"));
  request.mutable_chat()->set_add_generation_prompt(false);
  EXPECT_THAT(tokenize(request).rendered_text(), ::testing::Not(::testing::EndsWith("assistant\n")));
}

TEST_F(ServicesTest, BadTokenRequestsNameTheField) {
  start_and_load();
  pb::DetokenizeRequest request;
  request.add_token_ids(5);
  request.add_token_ids(100000);
  grpc::ClientContext context, second, third;
  pb::DetokenizeResponse text;
  const grpc::Status status = generation_->Detokenize(&context, request, &text);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), ::testing::StartsWith("token_ids[1]: "));
  pb::TokenizeResponse tokens;
  pb::TokenizeRequest large;
  large.set_text(std::string(static_cast<size_t>(5) << 20, 'a'));
  const grpc::Status refused = generation_->Tokenize(&third, large, &tokens);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(refused.error_message(), ::testing::HasSubstr("text: has 5242880 bytes"));
  EXPECT_EQ(generation_->Tokenize(&second, {}, &tokens).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(ServicesTest, Models) {
  start_and_load();
  grpc::ClientContext context;
  pb::ListModelsResponse response;
  ASSERT_TRUE(model_->ListModels(&context, {}, &response).ok());
  ASSERT_EQ(response.models_size(), 1);
  const pb::Model model = response.models(0);
  EXPECT_EQ(model.id(), "tiny");
  EXPECT_EQ(model.architecture(), "llama");
  EXPECT_EQ(model.layers(), 2u);
  EXPECT_EQ(model.kv_heads(), 2u);
  EXPECT_EQ(model.kv_dtype(), pb::KV_DTYPE_F16);
  EXPECT_EQ(model.kv_bytes_per_token(), 2u * 2 * 2 * 16 * 2);  // keys and values, layers, heads, head size, bytes
  // Computed beside; it delays nothing.
  EXPECT_TRUE(eventually([&] {
    grpc::ClientContext again;
    EXPECT_TRUE(model_->ListModels(&again, {}, &response).ok());
    return !response.models(0).sha256().empty();
  }));
  EXPECT_EQ(response.models(0).sha256(), *file_sha256(model_file_.path()));
  EXPECT_EQ(response.models(0).sha256().size(), 64u);
}

TEST_F(ServicesTest, FieldsThatAreNotKnownAreRefusedByEveryMethod) {
  start_and_load();
  const auto expect_refused = [](auto& stub, auto method, auto message, auto reply) {
    message.GetReflection()->MutableUnknownFields(&message)->AddVarint(12, 1);
    grpc::ClientContext context;
    const grpc::Status status = (stub.*method)(&context, message, &reply);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::UNIMPLEMENTED) << message.GetTypeName();
    EXPECT_THAT(status.error_message(), ::testing::HasSubstr("12")) << message.GetTypeName();
  };
  using Generation = pb::GenerationService::StubInterface;
  expect_refused(*generation_, &Generation::Generate, request("hello", 1), pb::GenerateResponse());
  expect_refused(*generation_, &Generation::Compare, pb::CompareRequest(), pb::CompareResponse());
  expect_refused(*generation_, &Generation::Tokenize, pb::TokenizeRequest(), pb::TokenizeResponse());
  expect_refused(*generation_, &Generation::Detokenize, pb::DetokenizeRequest(), pb::DetokenizeResponse());
  expect_refused(*generation_, &Generation::EstimateCache, pb::EstimateCacheRequest(), pb::EstimateCacheResponse());
  using Model = pb::ModelService::StubInterface;
  expect_refused(*model_, &Model::ListModels, pb::ListModelsRequest(), pb::ListModelsResponse());
  expect_refused(*model_, &Model::ListCachePolicies, pb::ListCachePoliciesRequest(), pb::ListCachePoliciesResponse());
  using Stats = pb::StatsService::StubInterface;
  expect_refused(*stats_, &Stats::GetStats, pb::GetStatsRequest(), pb::GetStatsResponse());
  const auto expect_stream_refused = [](auto& stub, auto method, auto message) {
    message.GetReflection()->MutableUnknownFields(&message)->AddVarint(12, 1);
    grpc::ClientContext context;
    EXPECT_EQ((stub.*method)(&context, message)->Finish().error_code(), grpc::StatusCode::UNIMPLEMENTED)
        << message.GetTypeName();
  };
  expect_stream_refused(*generation_, &pb::GenerationService::Stub::GenerateStream, request("hello", 1));
  expect_stream_refused(*stats_, &pb::StatsService::Stub::WatchStats, pb::WatchStatsRequest());
}

TEST_F(ServicesTest, AnUnknownModelIsNotFound) {
  start_and_load();
  pb::GenerateRequest wish = request("hello", 2);
  wish.set_model("huge");
  pb::GenerateResponse reply;
  EXPECT_EQ(generate(wish, reply).error_code(), grpc::StatusCode::NOT_FOUND);
  wish.set_model("tiny");
  EXPECT_TRUE(generate(wish, reply).ok());
}

TEST_F(ServicesTest, Policies) {
  start_and_load([](Config& config) {
    config.policies.presets.push_back(
        {.name = "small", .where = "f:1", .settings = {{"policy", "pyramidkv", "f:2"}, {"tokens", "64", "f:3"}}});
    config.policies.default_name = "small";
  });
  grpc::ClientContext context;
  pb::ListCachePoliciesResponse response;
  ASSERT_TRUE(model_->ListCachePolicies(&context, {}, &response).ok());
  std::vector<std::string> names;
  for (const pb::CachePolicyInfo& policy : response.policies()) {
    names.push_back(policy.name());
    EXPECT_TRUE(policy.enabled());
    EXPECT_FALSE(policy.summary().empty());
    EXPECT_NE(policy.defaults().policy_case(), pb::CachePolicy::POLICY_NOT_SET);
  }
  EXPECT_THAT(names,
              ::testing::UnorderedElementsAre("full", "streaming_llm", "h2o", "snapkv", "pyramidkv", "l2norm", "tova",
                                              "keydiff", "random", "ada_snapkv", "ada_pyramidkv", "funnel"));
  EXPECT_TRUE(response.default_policy().has_pyramidkv());
  EXPECT_EQ(response.default_policy().budget().tokens(), 64u);
  ASSERT_EQ(response.presets_size(), 1);
  EXPECT_EQ(response.presets(0).name(), "small");
}

TEST_F(ServicesTest, StateWhenNothingRuns) {
  start_and_load();
  const pb::Stats now = stats();
  EXPECT_EQ(now.state(), pb::SERVER_STATE_SERVING);
  EXPECT_EQ(now.policies_size(), 12);
  EXPECT_EQ(now.memory().kv_live_bytes(), 0u);
  EXPECT_EQ(now.memory().kv_pool_bytes(), uint64_t{128} << 20);
  EXPECT_EQ(now.memory().page_bytes(), 4096u);
  EXPECT_GT(now.memory().weights_bytes(), 0u);
  EXPECT_EQ(now.scheduler().max_running(), 64u);
  EXPECT_FALSE(now.version().empty());
}

}  // namespace
}  // namespace pkv
