// A valid file damaged in every place: each byte changed in several ways, and the file cut after every byte. Whatever
// comes out must be a value or a status; run under AddressSanitizer this is a small deterministic fuzz test.
#include <gtest/gtest.h>

#include <cstring>
#include <memory>

#include "server/model/gguf_parser.h"
#include "tests/support/gguf_writer.h"

namespace pkv {
namespace {

std::string example() {
  test::GgufWriter writer;
  writer.set("general.architecture", "llama").set("general.alignment", uint32_t{32}).set("flag", true);
  writer.set("number", 0.5f).set_raw("wide", test::kU64, test::raw(uint64_t{5}));
  writer.set("words", std::vector<std::string>{"one", "two", ""}).set("scores", std::vector<float>{1.0f, 2.0f});
  writer.set_raw("flags", test::kArray, test::raw(uint32_t{test::kBool}) + test::raw(uint64_t{2}) + "\1\1");
  writer.set_raw("wides", test::kArray,
                 test::raw(uint32_t{test::kU64}) + test::raw(uint64_t{1}) + test::raw(uint64_t{9}));
  writer.add_tensor("gain", std::vector<float>{1.0f, 2.0f, 3.0f});
  writer.add_tensor("matrix", {64, 2}, WeightType::kQ4_1, std::string(80, 'x'));
  return writer.bytes();
}

// Parses a copy that ends where the file ends, so that a read beyond it is seen. True if the file was accepted, in
// which case every byte of every tensor is read.
bool parse(const std::string& file) {
  auto copy = std::make_unique<std::byte[]>(file.size());
  std::memcpy(copy.get(), file.data(), file.size());
  const absl::StatusOr<GgufContents> contents = parse_gguf({copy.get(), file.size()});
  if (!contents.ok()) {
    EXPECT_FALSE(contents.status().message().empty());
    return false;
  }
  for (const GgufTensor& tensor : contents->tensors) {
    const std::vector<std::byte> data(tensor.data.begin(), tensor.data.end());
    const WeightSource source = tensor.source();
    const QuantTraits& traits = quant_traits(source.type);
    EXPECT_EQ(static_cast<size_t>(source.rows * source.cols / traits.block_size * traits.block_bytes), data.size());
  }
  return true;
}

TEST(GgufMutationTest, EveryTruncationIsRefused) {
  const std::string file = example();
  ASSERT_TRUE(parse(file));
  for (size_t length = 0; length < file.size(); ++length) EXPECT_FALSE(parse(file.substr(0, length))) << length;
}

TEST(GgufMutationTest, EveryChangedByteIsSurvived) {
  const std::string file = example();
  size_t accepted = 0, refused = 0;
  for (size_t at = 0; at < file.size(); ++at) {
    std::string mutant = file;
    for (int value = 0; value < 256; ++value) {
      mutant[at] = static_cast<char>(value);
      (parse(mutant) ? accepted : refused) += 1;
    }
  }
  EXPECT_GT(accepted, 0u);  // a changed weight is a weight
  EXPECT_GT(refused, 0u);
}

TEST(GgufMutationTest, EveryLyingWordIsSurvived) {
  const std::string file = example();
  const uint64_t lies[] = {
      0, ~uint64_t{0}, uint64_t{1} << 63, (uint64_t{1} << 63) - 1, uint64_t{1} << 61, uint64_t{1} << 32};
  for (size_t at = 0; at + sizeof(uint64_t) <= file.size(); ++at) {
    for (uint64_t lie : lies) {
      std::string mutant = file;
      std::memcpy(mutant.data() + at, &lie, sizeof(lie));
      parse(mutant);
    }
  }
}

}  // namespace
}  // namespace pkv
