// GgufFile: the memory mapping and typed access to the keys and tensors that parse_gguf() found.
#include "server/model/gguf.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/status_macros.h"
#include "server/model/errors.h"
#include "server/model/gguf_parser.h"

namespace pkv {
namespace {

std::string_view type_name(const GgufValue& value) {
  static constexpr std::string_view kScalars[] = {"an integer", "an integer", "a floating-point number", "a boolean",
                                                  "a string"};
  static constexpr std::string_view kArrays[] = {"an array of integers", "an array of floating-point numbers",
                                                 "an array of booleans", "an array of strings"};
  const GgufArray* array = std::get_if<GgufArray>(&value);
  return array != nullptr ? kArrays[array->index()] : kScalars[value.index()];
}

absl::Status absent(std::string_view key) { return invalid_argument("key '", key, "' is missing"); }

absl::Status wrong_type(std::string_view key, std::string_view wanted, const GgufValue& value) {
  return invalid_argument("key '", key, "': ", wanted, " is expected, the file has ", type_name(value));
}

// The value of `key` as the alternative T of GgufValue.
template <typename T>
absl::StatusOr<T> scalar(const GgufFile& file, std::string_view key, std::string_view wanted) {
  const GgufValue* value = file.find(key);
  if (value == nullptr) return absent(key);
  const T* typed = std::get_if<T>(value);
  if (typed == nullptr) return wrong_type(key, wanted, *value);
  return *typed;
}

// The value of `key` as an array of T.
template <typename T>
absl::StatusOr<std::vector<T>> elements(const GgufFile& file, std::string_view key, std::string_view wanted) {
  const GgufValue* value = file.find(key);
  if (value == nullptr) return absent(key);
  const GgufArray* array = std::get_if<GgufArray>(value);
  const std::vector<T>* typed = array == nullptr ? nullptr : std::get_if<std::vector<T>>(array);
  if (typed == nullptr) return wrong_type(key, wanted, *value);
  return *typed;
}

// A file descriptor that is closed at the end of the scope; a mapping outlives it.
class FileDescriptor {
 public:
  explicit FileDescriptor(int fd) : fd_(fd) {}
  ~FileDescriptor() {
    if (fd_ >= 0) close(fd_);
  }
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

absl::StatusOr<std::span<const std::byte>> map_file(const std::string& path) {
  // Non-blocking, so that a pipe is refused below instead of waited for.
  const FileDescriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (fd.get() < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot open the model file ", path));
  struct stat info {};
  if (fstat(fd.get(), &info) != 0)
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot examine the model file ", path));
  if (!S_ISREG(info.st_mode)) {
    return invalid_argument(path, S_ISDIR(info.st_mode) ? " is a folder" : " is not a regular file",
                            "; a GGUF file is expected");
  }
  const auto bytes = static_cast<size_t>(info.st_size);
  if (bytes == 0) return std::span<const std::byte>();
  void* base = mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE, fd.get(), 0);
  if (base == MAP_FAILED) return absl::ErrnoToStatus(errno, absl::StrCat("cannot map the model file ", path));
  return std::span(static_cast<const std::byte*>(base), bytes);
}

}  // namespace

WeightSource GgufTensor::source() const {
  WeightSource result{.data = data.data(), .type = type, .rows = 1, .cols = dims[0]};
  for (size_t i = 1; i < dims.size(); ++i) result.rows *= dims[i];
  return result;
}

absl::StatusOr<std::unique_ptr<GgufFile>> GgufFile::open(const std::string& path) {
  std::unique_ptr<GgufFile> file(new GgufFile());
  PKV_ASSIGN_OR_RETURN(std::span<const std::byte> mapping, map_file(path));
  file->path_ = path;
  file->mapping_ = mapping;
  absl::StatusOr<GgufContents> contents = parse_gguf(file->mapping_);
  if (!contents.ok()) {
    return absl::Status(contents.status().code(), absl::StrCat(path, ": ", contents.status().message()));
  }
  file->values_ = std::move(contents->values);
  file->tensors_ = std::move(contents->tensors);
  for (size_t i = 0; i < file->tensors_.size(); ++i) file->tensor_index_.emplace(file->tensors_[i].name, i);
  return file;
}

GgufFile::~GgufFile() {
  if (!mapping_.empty()) munmap(const_cast<std::byte*>(mapping_.data()), mapping_.size());
}

const GgufValue* GgufFile::find(std::string_view key) const {
  const auto found = values_.find(key);
  return found == values_.end() ? nullptr : &found->second;
}

absl::StatusOr<uint32_t> GgufFile::u32(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return absent(key);
  const uint64_t* plain = std::get_if<uint64_t>(value);
  const int64_t* with_sign = std::get_if<int64_t>(value);
  if (plain == nullptr && with_sign == nullptr) return wrong_type(key, "an unsigned integer", *value);
  const bool in_range = plain != nullptr ? std::in_range<uint32_t>(*plain) : std::in_range<uint32_t>(*with_sign);
  if (!in_range) {
    const std::string shown = plain != nullptr ? absl::StrCat(*plain) : absl::StrCat(*with_sign);
    return invalid_argument("key '", key, "': ", shown, " is out of range");
  }
  return static_cast<uint32_t>(plain != nullptr ? *plain : static_cast<uint64_t>(*with_sign));
}

absl::StatusOr<uint32_t> GgufFile::u32_or(std::string_view key, uint32_t fallback) const {
  if (!has(key)) return fallback;
  return u32(key);
}

absl::StatusOr<double> GgufFile::number(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return absent(key);
  if (const auto* real = std::get_if<double>(value)) return *real;
  if (const auto* integer = std::get_if<int64_t>(value)) return static_cast<double>(*integer);
  if (const auto* integer = std::get_if<uint64_t>(value)) return static_cast<double>(*integer);
  return wrong_type(key, "a number", *value);
}

absl::StatusOr<double> GgufFile::number_or(std::string_view key, double fallback) const {
  if (!has(key)) return fallback;
  return number(key);
}

absl::StatusOr<bool> GgufFile::boolean_or(std::string_view key, bool fallback) const {
  if (!has(key)) return fallback;
  return scalar<bool>(*this, key, "a boolean");
}

absl::StatusOr<std::string> GgufFile::string(std::string_view key) const {
  return scalar<std::string>(*this, key, "a string");
}

absl::StatusOr<std::string> GgufFile::string_or(std::string_view key, std::string fallback) const {
  if (!has(key)) return fallback;
  return string(key);
}

absl::StatusOr<std::vector<std::string>> GgufFile::strings(std::string_view key) const {
  return elements<std::string>(*this, key, "an array of strings");
}

absl::StatusOr<std::vector<int64_t>> GgufFile::integers(std::string_view key) const {
  return elements<int64_t>(*this, key, "an array of integers");
}

absl::StatusOr<std::vector<float>> GgufFile::floats(std::string_view key) const {
  PKV_ASSIGN_OR_RETURN(const std::vector<double> wide,
                       elements<double>(*this, key, "an array of floating-point numbers"));
  return std::vector<float>(wide.begin(), wide.end());
}

const GgufTensor* GgufFile::find_tensor(std::string_view name) const {
  const auto found = tensor_index_.find(name);
  return found == tensor_index_.end() ? nullptr : &tensors_[found->second];
}

absl::StatusOr<const GgufTensor*> GgufFile::tensor(std::string_view name, std::span<const int64_t> dims) const {
  const GgufTensor* found = find_tensor(name);
  if (found == nullptr) return invalid_argument("tensor '", name, "' is missing");
  if (!std::equal(dims.begin(), dims.end(), found->dims.begin(), found->dims.end())) {
    return invalid_argument("tensor '", name, "': its dimensions are [", absl::StrJoin(found->dims, ", "),
                            "], the model's hyperparameters need [", absl::StrJoin(dims, ", "), "]");
  }
  return found;
}

}  // namespace pkv
