// Well-formed GGUF files: every value type, the typed accessors and their errors, tensors and where their data lies.
#include "server/model/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <limits>

#include "tests/support/gguf_writer.h"

namespace pkv {
namespace {

using test::GgufWriter;
using test::TempFile;
using testing::ElementsAre;
using testing::HasSubstr;

// A file that stays mapped after its name is gone.
std::unique_ptr<GgufFile> open(const GgufWriter& writer) {
  const TempFile file = writer.write();
  absl::StatusOr<std::unique_ptr<GgufFile>> result = GgufFile::open(file.path());
  EXPECT_TRUE(result.ok()) << result.status();
  return result.ok() ? *std::move(result) : nullptr;
}

TEST(GgufTest, ReadsEveryTypeOfNumber) {
  GgufWriter writer;
  writer.set_raw("u8", test::kU8, test::raw(uint8_t{255}))
      .set_raw("i8", test::kI8, test::raw(int8_t{-128}))
      .set_raw("u16", test::kU16, test::raw(uint16_t{65535}))
      .set_raw("i16", test::kI16, test::raw(int16_t{-2}))
      .set_raw("u32", test::kU32, test::raw(uint32_t{4294967295u}))
      .set_raw("i32", test::kI32, test::raw(int32_t{7}))
      .set_raw("u64", test::kU64, test::raw(uint64_t{12}))
      .set_raw("i64", test::kI64, test::raw(int64_t{13}))
      .set_raw("f32", test::kF32, test::raw(0.25f))
      .set_raw("f64", test::kF64, test::raw(1e300));
  const auto file = open(writer);
  ASSERT_NE(file, nullptr);
  EXPECT_EQ(*file->u32("u8"), 255u);
  EXPECT_EQ(std::get<int64_t>(*file->find("i8")), -128);
  EXPECT_EQ(*file->u32("u16"), 65535u);
  EXPECT_EQ(*file->number("i16"), -2.0);
  EXPECT_EQ(*file->u32("u32"), 4294967295u);
  EXPECT_EQ(*file->u32("i32"), 7u);
  EXPECT_EQ(*file->u32("u64"), 12u);
  EXPECT_EQ(*file->u32("i64"), 13u);
  EXPECT_EQ(*file->number("f32"), 0.25);
  EXPECT_EQ(*file->number("f64"), 1e300);
}

TEST(GgufTest, ReadsBooleansStringsAndArrays) {
  GgufWriter writer;
  writer.set("yes", true).set("no", false).set("text", std::string("a\0b", 3)).set("empty", "");
  writer.set("names", std::vector<std::string>{"one", "", "three"});
  writer.set("ids", std::vector<int32_t>{-1, 2}).set("scores", std::vector<float>{0.5f, -2.0f});
  writer.set_raw("flags", test::kArray,
                 test::raw(uint32_t{test::kBool}) + test::raw(uint64_t{2}) + std::string("\1\0", 2));
  writer.set("nothing", std::vector<std::string>{});
  const auto file = open(writer);
  ASSERT_NE(file, nullptr);
  EXPECT_TRUE(*file->boolean_or("yes", false));
  EXPECT_FALSE(*file->boolean_or("no", true));
  EXPECT_EQ(*file->string("text"), std::string("a\0b", 3));
  EXPECT_EQ(*file->string("empty"), "");
  EXPECT_THAT(*file->strings("names"), ElementsAre("one", "", "three"));
  EXPECT_THAT(*file->integers("ids"), ElementsAre(-1, 2));
  EXPECT_THAT(*file->floats("scores"), ElementsAre(0.5f, -2.0f));
  EXPECT_THAT(std::get<std::vector<bool>>(std::get<GgufArray>(*file->find("flags"))), ElementsAre(true, false));
  EXPECT_TRUE(file->strings("nothing")->empty());
}

TEST(GgufTest, AccessorsNameTheKey) {
  GgufWriter writer;
  writer.set("negative", int32_t{-1}).set("text", "x").set("real", 1.5f).set("ids", std::vector<int32_t>{1});
  writer.set_raw("huge", test::kU64, test::raw(uint64_t{1} << 32));
  const auto file = open(writer);
  ASSERT_NE(file, nullptr);
  const std::pair<absl::Status, std::string> cases[] = {
      {file->u32("absent").status(), "key 'absent' is missing"},
      {file->u32("negative").status(), "key 'negative': -1 is out of range"},
      {file->u32("huge").status(), "key 'huge': 4294967296 is out of range"},
      {file->u32("real").status(), "key 'real': an unsigned integer is expected, the file has a floating-point number"},
      {file->u32_or("text", 3).status(), "key 'text': an unsigned integer is expected, the file has a string"},
      {file->number("text").status(), "key 'text': a number is expected"},
      {file->number_or("ids", 1).status(), "key 'ids': a number is expected, the file has an array of integers"},
      {file->string("real").status(), "key 'real': a string is expected"},
      {file->string_or("ids", "x").status(), "key 'ids': a string is expected"},
      {file->boolean_or("negative", true).status(), "key 'negative': a boolean is expected, the file has an integer"},
      {file->strings("ids").status(), "key 'ids': an array of strings is expected"},
      {file->integers("text").status(), "key 'text': an array of integers is expected"},
      {file->floats("absent").status(), "key 'absent' is missing"},
  };
  for (const auto& [status, message] : cases) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << message;
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
  }
  EXPECT_EQ(*file->u32_or("absent", 3), 3u);
  EXPECT_EQ(*file->number_or("absent", 0.5), 0.5);
  EXPECT_EQ(*file->string_or("absent", "x"), "x");
  EXPECT_TRUE(*file->boolean_or("absent", true));
  EXPECT_FALSE(file->has("absent"));
  EXPECT_TRUE(file->has("text"));
}

class GgufVersionTest : public testing::TestWithParam<std::pair<uint32_t, uint32_t>> {};

TEST_P(GgufVersionTest, FindsTheDataOfTensors) {
  GgufWriter writer;
  std::tie(writer.version, writer.alignment) = GetParam();
  if (writer.alignment != 32) writer.set("general.alignment", writer.alignment);
  const std::string blocks(2 * 3 * 20, 'q');  // two rows of three Q4_1 blocks
  writer.add_tensor("gain", std::vector<float>{1.0f, 2.0f, 3.0f})
      .add_tensor("matrix", {96, 2}, WeightType::kQ4_1, blocks);
  const auto file = open(writer);
  ASSERT_NE(file, nullptr);
  ASSERT_EQ(file->tensors().size(), 2u);
  const auto gain = file->tensor("gain", std::vector<int64_t>{3});
  ASSERT_TRUE(gain.ok()) << gain.status();
  float values[3];
  ASSERT_EQ((*gain)->data.size(), sizeof(values));
  std::memcpy(values, (*gain)->data.data(), sizeof(values));
  EXPECT_THAT(values, ElementsAre(1.0f, 2.0f, 3.0f));

  const GgufTensor* matrix = file->find_tensor("matrix");
  ASSERT_NE(matrix, nullptr);
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(matrix->data.data()), matrix->data.size()), blocks);
  const WeightSource source = matrix->source();
  EXPECT_EQ(source.data, matrix->data.data());
  EXPECT_EQ(source.type, WeightType::kQ4_1);
  EXPECT_EQ(source.rows, 2);
  EXPECT_EQ(source.cols, 96);
  EXPECT_EQ((*gain)->source().rows, 1);
}

INSTANTIATE_TEST_SUITE_P(VersionAndAlignment, GgufVersionTest,
                         testing::Values(std::pair(2u, 32u), std::pair(3u, 32u), std::pair(3u, 8u),
                                         std::pair(3u, 4096u)));

TEST(GgufTest, TensorNamesWhatIsWrong) {
  GgufWriter writer;
  writer.add_tensor("gain", std::vector<float>{1.0f, 2.0f});
  const auto file = open(writer);
  ASSERT_NE(file, nullptr);
  EXPECT_EQ(file->find_tensor("bias"), nullptr);
  EXPECT_THAT(std::string(file->tensor("bias", std::vector<int64_t>{2}).status().message()),
              HasSubstr("tensor 'bias' is missing"));
  EXPECT_THAT(std::string(file->tensor("gain", std::vector<int64_t>{2, 1}).status().message()),
              HasSubstr("tensor 'gain': its dimensions are [2], the model's hyperparameters need [2, 1]"));
}

TEST(GgufTest, OpenReportsWhatTheEnvironmentCauses) {
  const std::filesystem::path folder = std::filesystem::temp_directory_path();
  EXPECT_EQ(GgufFile::open((folder / "no such file.gguf").string()).status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(GgufFile::open(folder.string()).status().message()), HasSubstr("is a folder"));
  EXPECT_THAT(std::string(GgufFile::open("/dev/null").status().message()), HasSubstr("is not a regular file"));
}

TEST(GgufTest, OpenReportsAFileItMayNotRead) {
  const TempFile file = GgufWriter().write();
  std::filesystem::permissions(file.path(), std::filesystem::perms::none);
  const absl::Status status = GgufFile::open(file.path()).status();
  if (status.ok()) GTEST_SKIP() << "this user may read every file";
  EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied);
}

}  // namespace
}  // namespace pkv
