// Truncated, lying and foreign files: each is refused with a message that names the key or tensor.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/model/gguf.h"
#include "tests/support/gguf_writer.h"

namespace pkv {
namespace {

using test::GgufWriter;
using test::raw;
using test::raw_string;
using test::TempFile;
using testing::HasSubstr;

struct MalformedCase {
  std::string name;
  std::string message;
  std::function<std::string()> bytes;
  absl::StatusCode code = absl::StatusCode::kInvalidArgument;
};
void PrintTo(const MalformedCase& test_case, std::ostream* out) { *out << test_case.name; }

GgufWriter small_file() {
  GgufWriter writer;
  writer.set("general.architecture", "llama").set("count", uint32_t{1});
  writer.add_tensor("first", std::vector<float>(8, 1.0f));
  writer.add_tensor("second", {32, 2}, WeightType::kQ8_0, std::string(68, 'x'));
  return writer;
}

// small_file() after `change`.
std::function<std::string()> changed(std::function<void(GgufWriter&)> change) {
  return [change] {
    GgufWriter writer = small_file();
    change(writer);
    return writer.bytes();
  };
}

std::function<std::string()> bytes(const std::string& text) {
  return [text] { return text; };
}

std::string header(uint32_t version, uint64_t tensors, uint64_t keys) {
  return "GGUF" + raw(version) + raw(tensors) + raw(keys);
}

constexpr uint64_t kHuge = uint64_t{1} << 62;
constexpr absl::StatusCode kUnimplemented = absl::StatusCode::kUnimplemented;

// A file of one key and what follows its name.
std::function<std::string()> last_key(const std::string& rest) {
  return bytes(header(3, 0, 1) + raw_string("last") + rest);
}

// The type and count of an array.
std::string array(uint32_t type, uint64_t count) { return raw(type) + raw(count); }

// small_file() with a key of this type and value.
std::function<std::string()> odd_key(uint32_t type, const std::string& value) {
  return changed([type, value](GgufWriter& w) { w.set_raw("odd", type, value); });
}

std::vector<MalformedCase> wrong_headers() {
  return {
      {"Empty", "it is empty", bytes("")},
      {"Text", "not a GGUF file: it begins with 'Hell'", bytes("Hello, world")},
      {"OldGgml", "a ggml file from before GGUF", bytes("tjgg and more")},
      {"Zip", "a zip archive", bytes("PK\x03\x04 and more")},
      {"LfsPointer", "a Git LFS pointer", bytes("version https://git-lfs.github.com/spec/v1\noid")},
      {"Safetensors", "a safetensors file", bytes(raw(uint64_t{100}) + "{\"weight\":")},
      {"BigEndian", "big-endian", bytes("GGUF" + raw(uint32_t{0x03000000}) + raw(uint64_t{0})), kUnimplemented},
      {"Version1", "version 1", bytes(header(1, 0, 0)), kUnimplemented},
      {"Version4", "version 4", bytes(header(4, 0, 0))},
      {"OnlyMagic", "truncated in the header", bytes("GGUF")},
      {"HalfHeader", "truncated in the header", bytes(header(3, 0, 0).substr(0, 20))},
      {"TooManyKeys", "declares 4611686018427387904 keys", bytes(header(3, 0, kHuge))},
      {"TooManyTensors", "declares 4611686018427387904 tensors", bytes(header(3, kHuge, 0))},
  };
}

std::vector<MalformedCase> wrong_keys() {
  return {
      {"KeyNameTooLong", "key 0 of 1: its name runs beyond",
       bytes(header(3, 0, 1) + raw(kHuge) + std::string(20, 'x'))},
      {"KeyNameTooLongLater", "key 1 of 2 (after 'good'): its name runs beyond",
       bytes(header(3, 0, 2) + raw_string("good") + raw(uint32_t{test::kU8}) + "\1" + raw(kHuge) +
             std::string(20, 'x'))},
      {"EmptyKeyName", "a name of 0 bytes", changed([](GgufWriter& w) { w.set("", uint32_t{1}); })},
      {"DuplicateKey", "key 'count': occurs twice",
       changed([](GgufWriter& w) { w.add_raw("count", test::kU32, raw(uint32_t{2})); })},
      {"UnknownValueType", "key 'odd': unknown value type 13", odd_key(13, raw(1))},
      {"OddBoolean", "key 'odd': a boolean with the value 2", odd_key(test::kBool, "\2")},
      {"KeyNameIsEscaped", "key 'a\\nb\\x01': unknown value type",
       changed([](GgufWriter& w) { w.set_raw("a\nb\1", 99, ""); })},
      {"NoType", "key 'last': the file ends before its type", last_key("ab")},
      {"ValueCut", "key 'last': its value runs beyond", last_key(raw(uint32_t{test::kU64}) + "1234567")},
      {"StringCut", "key 'last': its string runs beyond", last_key(raw(uint32_t{test::kString}) + raw(kHuge) + "text")},
      {"ArrayHeaderCut", "key 'last': the file ends in its array's header",
       last_key(raw(uint32_t{test::kArray}) + raw(uint32_t{test::kU8}))},
      {"ArrayTooLong", "key 'last': an array of 4611686018427387904 elements runs beyond",
       last_key(raw(uint32_t{test::kArray}) + array(test::kU64, kHuge))},
      {"StringArrayTooLong", "key 'last': an array of 4611686018427387904 elements runs beyond",
       last_key(raw(uint32_t{test::kArray}) + array(test::kString, kHuge))},
      {"BooleanArrayTooLong", "key 'last': an array of 4611686018427387904 elements runs beyond",
       last_key(raw(uint32_t{test::kArray}) + array(test::kBool, kHuge))},
      {"StringElementCut", "key 'last': element 1 of 2 runs beyond",
       last_key(raw(uint32_t{test::kArray}) + array(test::kString, uint64_t{2}) + raw_string("one") + raw(kHuge))},
      {"OddBooleanElement", "key 'odd': element 1 is a boolean with the value 3",
       odd_key(test::kArray, array(test::kBool, 2) + "\1\3")},
      {"NestedArray", "key 'odd': arrays of arrays",
       odd_key(test::kArray, array(test::kArray, 1) + array(test::kU8, 0)), kUnimplemented},
      {"UnknownElementType", "key 'odd': an array of unknown value type 77", odd_key(test::kArray, array(77, 1) + "x")},
      {"ElementOutOfRange", "key 'odd': element 0 is out of range: 18446744073709551615",
       odd_key(test::kArray, array(test::kU64, 1) + raw(~uint64_t{0}))},
      {"AlignmentNoPowerOfTwo", "key 'general.alignment': 48 is not a power of two",
       changed([](GgufWriter& w) { w.set("general.alignment", uint32_t{48}); })},
      {"AlignmentZero", "key 'general.alignment': 0",
       changed([](GgufWriter& w) { w.set("general.alignment", uint32_t{0}); })},
      {"AlignmentHuge", "key 'general.alignment'",
       changed([](GgufWriter& w) { w.set_raw("general.alignment", test::kU64, raw(uint64_t{1} << 63)); })},
      {"AlignmentText", "key 'general.alignment': not an unsigned",
       changed([](GgufWriter& w) { w.set("general.alignment", "32"); })},
  };
}

std::vector<MalformedCase> wrong_tensors() {
  return {
      {"TensorNameTooLong", "tensor 0 of 1: its name runs beyond",
       bytes(header(3, 1, 0) + raw(kHuge) + std::string(50, 'x'))},
      {"TensorNameEmpty", "tensor 1 of 2 (after 'first'): a name of 0 bytes",
       changed([](GgufWriter& w) { w.tensor("second").name = ""; })},
      {"DuplicateTensor", "tensor 'first': occurs twice",
       changed([](GgufWriter& w) { w.tensor("second").name = "first"; })},
      {"DescriptionCut", "tensor 'second': the file ends in its description",
       [] {
         const std::string file = small_file().bytes();
         return file.substr(0, file.find("second") + 6 + 4 + 16 + 4 + 3);
       }},
      {"NoDimensions", "tensor 'first': 0 dimensions", changed([](GgufWriter& w) { w.tensor("first").dims = {}; })},
      {"FiveDimensions", "tensor 'first': 5 dimensions", changed([](GgufWriter& w) {
         w.tensor("first").dims = {1, 1, 1, 1, 8};
       })},
      {"ZeroDimension", "tensor 'first': impossible size 0", changed([](GgufWriter& w) {
         w.tensor("first").dims = {8, 0};
       })},
      {"NegativeDimension", "tensor 'first': impossible size 18446744073709551608",
       changed([](GgufWriter& w) { w.tensor("first").dims = {-8}; })},
      {"ElementsOverflow", "tensor 'first': impossible size 4294967296 of dimension 1", changed([](GgufWriter& w) {
         w.tensor("first").dims = {int64_t{1} << 32, int64_t{1} << 32};
       })},
      {"BytesOverflow", "tensor 'first': impossible number of elements", changed([](GgufWriter& w) {
         w.tensor("first").dims = {int64_t{1} << 62, 2};
       })},
      {"UnknownFormat", "tensor 'first': unknown weight format 4711",
       changed([](GgufWriter& w) { w.tensor("first").ggml_id = 4711; })},
      {"UnsupportedFormat", "tensor 'first': weight format Q2_K is not supported",
       changed([](GgufWriter& w) { w.tensor("first").ggml_id = 10; }), kUnimplemented},
      {"PartOfABlock", "tensor 'second': rows of 48 weights are not whole blocks of 32 (Q8_0)",
       changed([](GgufWriter& w) {
         w.tensor("second").dims = {48, 2};
       })},
      {"UnalignedOffset", "tensor 'second': offset 36 is not a multiple of the alignment 32",
       changed([](GgufWriter& w) { w.tensor("second").offset = 36; })},
      {"OffsetBeyondTheEnd", "tensor 'second': its 68 bytes at offset 4611686018427387904 run beyond",
       changed([](GgufWriter& w) { w.tensor("second").offset = kHuge; })},
      {"OffsetWrapsAround", "tensor 'second': its 68 bytes at offset 18446744073709551584 run beyond",
       changed([](GgufWriter& w) { w.tensor("second").offset = ~uint64_t{31}; })},
      {"TensorTooLarge", "tensor 'second': its 6800 bytes at offset 32 run beyond", changed([](GgufWriter& w) {
         w.tensor("second").dims = {32, 200};
       })},
      {"DataCut", "tensor 'second': its 68 bytes at offset 32 run beyond",
       [] {
         const std::string file = small_file().bytes();
         return file.substr(0, file.size() - 1);
       }},
      {"Overlap", "tensor 'second': overlaps tensor 'first'",
       changed([](GgufWriter& w) { w.tensor("second").offset = 0; })},
  };
}

std::vector<MalformedCase> malformed_cases() {
  std::vector<MalformedCase> all = wrong_headers();
  for (const auto& more : {wrong_keys(), wrong_tensors()}) all.insert(all.end(), more.begin(), more.end());
  return all;
}

class MalformedTest : public testing::TestWithParam<MalformedCase> {};

TEST_P(MalformedTest, IsRefusedByName) {
  const TempFile file(GetParam().bytes());
  const absl::Status status = GgufFile::open(file.path()).status();
  EXPECT_EQ(status.code(), GetParam().code) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().message));
  EXPECT_THAT(std::string(status.message()), HasSubstr(file.path()));
}

INSTANTIATE_TEST_SUITE_P(Files, MalformedTest, testing::ValuesIn(malformed_cases()),
                         [](const auto& test) { return test.param.name; });

TEST(MalformedTest, TheFileTheCasesChangeIsGood) {
  const TempFile file = small_file().write();
  EXPECT_TRUE(GgufFile::open(file.path()).ok());
}

}  // namespace
}  // namespace pkv
