// load_model: the registry, what a loaded model says of itself, and files it must refuse.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <functional>
#include <vector>

#include "kernels/backend.h"
#include "server/model/model.h"
#include "tests/support/gguf_writer.h"

namespace pkv {
namespace {

using test::GgufWriter;
using testing::HasSubstr;

class LoadModelTest : public testing::Test {
 protected:
  absl::StatusOr<std::unique_ptr<Model>> load(const GgufWriter& writer) {
    file_ = *GgufFile::open(writer.write().path());
    return load_model(*file_, *backend_);
  }

  std::unique_ptr<Backend> backend_ = *make_backend({.device = "reference"});
  std::unique_ptr<GgufFile> file_;
};

TEST_F(LoadModelTest, CanBeGivenUp) {
  const test::TempFile model = test::make_tiny_llama();
  const auto file = GgufFile::open(model.path());
  std::stop_source stop;
  const Loading loading{.stop = stop.get_token()};
  EXPECT_TRUE(load_model(**file, *backend_, loading).ok());
  stop.request_stop();
  EXPECT_EQ(load_model(**file, *backend_, loading).status().code(), absl::StatusCode::kCancelled);
}

TEST_F(LoadModelTest, TellsHowFarItIs) {
  const test::TempFile model = test::make_tiny_llama();
  const auto file = GgufFile::open(model.path());
  std::vector<uint64_t> told;
  uint64_t whole = 0;
  const Loading loading{.progress = [&](uint64_t done, uint64_t all) {
    told.push_back(done);
    whole = all;
  }};
  ASSERT_TRUE(load_model(**file, *backend_, loading).ok());
  EXPECT_EQ(told.size(), (*file)->tensors().size());
  EXPECT_TRUE(std::is_sorted(told.begin(), told.end()));
  EXPECT_GT(told.front(), 0u);
  EXPECT_EQ(told.back(), whole);
}

TEST_F(LoadModelTest, ReportsItsFormatAndBytes) {
  const auto tied = load(test::tiny_llama({.weight_type = WeightType::kQ8_0}));
  ASSERT_TRUE(tied.ok()) << tied.status();
  EXPECT_EQ((*tied)->shape().weights, "Q8_0");
  EXPECT_EQ((*tied)->shape().vocab_size, 320);
  const auto own = load(test::tiny_llama({.weight_type = WeightType::kQ8_0, .own_head = true}));
  ASSERT_TRUE(own.ok()) << own.status();
  // The head is one matrix more, as large as the embedding.
  const auto head = backend_->prepare_weight(file_->find_tensor("output.weight")->source());
  EXPECT_EQ((*own)->weight_bytes() - (*tied)->weight_bytes(), (*head)->bytes());
}

TEST_F(LoadModelTest, ScratchHasTheShapesOfTheModel) {
  const auto model = load(test::tiny_llama());
  ASSERT_TRUE(model.ok()) << model.status();
  const absl::StatusOr<StepScratch> scratch = (*model)->make_scratch(10);
  ASSERT_TRUE(scratch.ok()) << scratch.status();
  EXPECT_EQ(scratch->rows, 10);
  EXPECT_EQ(scratch->q.view().rows, 10);
  EXPECT_EQ(scratch->q.view().cols, 64);
  EXPECT_EQ(scratch->k.view().cols, 32);
  EXPECT_EQ(scratch->gate.view().cols, 96);
  EXPECT_EQ(scratch->lse.view().cols, 4);
  EXPECT_EQ(scratch->bytes, 10u * 4 * (64 + 64 + 32 + 32 + 64 + 4 + 96 + 96));
}

TEST_F(LoadModelTest, NamesWhatItRefuses) {
  const struct {
    std::string message;
    absl::StatusCode code;
    std::function<void(GgufWriter&)> change;
  } cases[] = {
      {"key 'general.architecture' is missing", absl::StatusCode::kInvalidArgument,
       [](GgufWriter& w) { w.remove("general.architecture"); }},
      {"key 'general.architecture': 'mamba' is not supported; this build has llama, qwen2, qwen3",
       absl::StatusCode::kUnimplemented, [](GgufWriter& w) { w.set("general.architecture", "mamba"); }},
      {"key 'llama.expert_count'", absl::StatusCode::kUnimplemented,
       [](GgufWriter& w) { w.set("llama.expert_count", uint32_t{8}); }},
      {"key 'llama.rope.scaling.type': 'yarn'", absl::StatusCode::kUnimplemented,
       [](GgufWriter& w) { w.set("llama.rope.scaling.type", "yarn"); }},
      {"tensor 'blk.1.attn_v.weight' is missing", absl::StatusCode::kInvalidArgument,
       [](GgufWriter& w) { w.remove_tensor("blk.1.attn_v.weight"); }},
      {"tensor 'output_norm.weight' is missing", absl::StatusCode::kInvalidArgument,
       [](GgufWriter& w) { w.remove_tensor("output_norm.weight"); }},
      {"tensor 'blk.0.ffn_down.weight': its dimensions are [64, 96], the model's hyperparameters need [96, 64]",
       absl::StatusCode::kInvalidArgument,
       [](GgufWriter& w) {
         w.tensor("blk.0.ffn_down.weight").dims = {64, 96};
       }},
      {"tensor 'blk.0.attn_norm.weight': its dimensions are [32, 2]", absl::StatusCode::kInvalidArgument,
       [](GgufWriter& w) {
         w.tensor("blk.0.attn_norm.weight").dims = {32, 2};
       }},
      {"tensor 'blk.0.attn_q.bias': its dimensions are [3]", absl::StatusCode::kInvalidArgument,
       [](GgufWriter& w) {
         w.add_tensor("blk.0.attn_q.bias", {1, 2, 3});
       }},
      {"tensor 'blk.2.attn_norm.weight': this build does not know what to do with it", absl::StatusCode::kUnimplemented,
       [](GgufWriter& w) {
         w.add_tensor("blk.2.attn_norm.weight", {1, 2, 3});
       }},
      {"tensor 'blk.0.attn_output.bias': this build does not know", absl::StatusCode::kUnimplemented,
       [](GgufWriter& w) {
         w.add_tensor("blk.0.attn_output.bias", {1, 2, 3});
       }},
  };
  for (const auto& test_case : cases) {
    GgufWriter writer = test::tiny_llama();
    test_case.change(writer);
    const absl::Status status = load(writer).status();
    EXPECT_EQ(status.code(), test_case.code) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(test_case.message));
    EXPECT_THAT(std::string(status.message()), HasSubstr(file_->path()));
  }
}

// What an architecture needs beyond the shared parts, and what another one has.
TEST_F(LoadModelTest, ArchitecturesKnowTheirTensors) {
  const auto refusal = [this](GgufWriter writer, const std::function<void(GgufWriter&)>& change) {
    change(writer);
    return std::string(load(writer).status().message());
  };
  const std::vector<float> head(16, 1.0f);
  for (const char* tensor : {"blk.0.attn_q.bias", "blk.1.attn_k.bias", "blk.1.attn_v.bias"}) {
    EXPECT_THAT(refusal(test::tiny_qwen2(), [&](GgufWriter& w) { w.remove_tensor(tensor); }),
                HasSubstr(std::string("tensor '") + tensor + "' is missing"));
  }
  EXPECT_THAT(refusal(test::tiny_qwen2(), [&](GgufWriter& w) { w.add_tensor("blk.0.attn_q_norm.weight", head); }),
              HasSubstr("tensor 'blk.0.attn_q_norm.weight': this build does not know"));
  for (const char* tensor : {"blk.0.attn_q_norm.weight", "blk.1.attn_k_norm.weight"}) {
    EXPECT_THAT(refusal(test::tiny_qwen3(), [&](GgufWriter& w) { w.remove_tensor(tensor); }),
                HasSubstr(std::string("tensor '") + tensor + "' is missing"));
  }
  EXPECT_THAT(refusal(test::tiny_qwen3(), [&](GgufWriter& w) { w.add_tensor("blk.0.attn_v.bias", head); }),
              HasSubstr("tensor 'blk.0.attn_v.bias': this build does not know"));
}

TEST_F(LoadModelTest, RefusesAttentionThatTheBackendCannotCompute) {
  const GgufWriter models[] = {test::tiny_llama({.head_dim = 12}),
                               test::tiny_llama({.q_heads = 65, .kv_heads = 1, .head_dim = 8})};
  for (const GgufWriter& model : models) EXPECT_TRUE(load(model).ok());  // the reference computes any
  backend_ = *make_backend({.device = "cpu", .threads = 1});
  EXPECT_TRUE(load(test::tiny_llama({.q_heads = 64, .kv_heads = 1, .head_dim = 8})).ok());
  const char* reasons[] = {"multiples of 8, not 12", "up to 64 query heads share a KV head, not 65 heads 1"};
  for (size_t i = 0; i < std::size(models); ++i) {
    const absl::Status status = load(models[i]).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
    for (const char* part : {"keys 'llama.attention.head_count' (", "'llama.attention.head_count_kv' (",
                             "'llama.attention.key_length' (", "the cpu device", reasons[i]}) {
      EXPECT_THAT(std::string(status.message()), HasSubstr(part));
    }
  }
}

// Every byte of the keys and tensor descriptions damaged: hyperparameters that lie must not lead outside of the
// weights.
TEST_F(LoadModelTest, SurvivesDamagedMetadata) {
  GgufWriter writer =
      test::tiny_llama({.layers = 1, .q_heads = 1, .kv_heads = 1, .width = 32, .feed_forward = 32, .vocab = 259});
  for (const char* key : {"model", "pre", "tokens", "token_type", "merges"})
    writer.remove(std::string("tokenizer.ggml.") + key);
  const std::string good = writer.bytes();
  const size_t metadata = good.size() - writer.data_bytes();
  const test::TempFile file(good);
  std::fstream patch(file.path(), std::ios::in | std::ios::out | std::ios::binary);
  const auto put = [&patch](size_t at, int value) {
    patch.seekp(static_cast<std::streamoff>(at)).put(static_cast<char>(value)).flush();
  };
  size_t accepted = 0, refused = 0;
  for (size_t at = 0; at < metadata; ++at) {
    for (const int change : {0x01, 0x10, 0x80, 0xff}) {
      put(at, good[at] ^ change);
      const auto damaged = GgufFile::open(file.path());
      const bool loaded = damaged.ok() && load_model(**damaged, *backend_).ok();
      (loaded ? accepted : refused) += 1;
    }
    put(at, good[at]);
  }
  ASSERT_TRUE(patch.good());
  EXPECT_GT(accepted, 0u);  // a changed name of the model is as good as another
  EXPECT_GT(refused, 0u);
}

}  // namespace
}  // namespace pkv
