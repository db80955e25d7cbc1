// Writing GGUF files, and temporary files to put them into.
#include "tests/support/gguf_writer.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "kernels/check.h"

namespace pkv::test {
namespace {

template <typename T>
std::string raw_array(GgufValueType type, const std::vector<T>& values, std::string (*encode)(T)) {
  std::string bytes = raw(uint32_t{type}) + raw(uint64_t{values.size()});
  for (const T& value : values) bytes += encode(value);
  return bytes;
}

size_t padding(size_t bytes, size_t alignment) { return (alignment - bytes % alignment) % alignment; }

}  // namespace

TempFile::TempFile(std::string_view content) {
  path_ = (std::filesystem::temp_directory_path() / "pkv_test_XXXXXX").string();
  const int fd = mkstemp(path_.data());
  PKV_CHECK(fd >= 0, "cannot make a temporary file");
  while (!content.empty()) {
    const ssize_t written = ::write(fd, content.data(), content.size());
    PKV_CHECK(written > 0, "cannot write a temporary file");
    content.remove_prefix(static_cast<size_t>(written));
  }
  close(fd);
}

TempFile::~TempFile() {
  if (!path_.empty()) unlink(path_.c_str());
}

std::string raw_string(std::string_view text) { return raw(uint64_t{text.size()}) + std::string(text); }

GgufWriter& GgufWriter::set(const std::string& key, const std::vector<std::string>& values) {
  return set_raw(key, kArray,
                 raw_array<std::string>(kString, values, [](std::string text) { return raw_string(text); }));
}
GgufWriter& GgufWriter::set(const std::string& key, const std::vector<int32_t>& values) {
  return set_raw(key, kArray, raw_array<int32_t>(kI32, values, raw));
}
GgufWriter& GgufWriter::set(const std::string& key, const std::vector<float>& values) {
  return set_raw(key, kArray, raw_array<float>(kF32, values, raw));
}

GgufWriter& GgufWriter::set_raw(const std::string& key, uint32_t type, const std::string& value) {
  const auto found = std::ranges::find(keys_, key, &Key::name);
  if (found == keys_.end()) return add_raw(key, type, value);
  *found = {key, type, value};
  return *this;
}

GgufWriter& GgufWriter::add_raw(const std::string& key, uint32_t type, const std::string& value) {
  keys_.push_back({key, type, value});
  return *this;
}

GgufWriter& GgufWriter::remove(const std::string& key) {
  PKV_CHECK(std::erase_if(keys_, [&](const Key& other) { return other.name == key; }) > 0, key.c_str());
  return *this;
}

GgufWriter& GgufWriter::add_tensor(const std::string& name, const std::vector<int64_t>& dims, WeightType type,
                                   std::string data) {
  tensors_.push_back({name, dims, quant_traits(type).ggml_id, std::move(data), {}});
  return *this;
}

GgufWriter& GgufWriter::add_tensor(const std::string& name, const std::vector<float>& values) {
  std::string data(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
  return add_tensor(name, {static_cast<int64_t>(values.size())}, WeightType::kF32, std::move(data));
}

GgufWriter& GgufWriter::remove_tensor(const std::string& name) {
  PKV_CHECK(std::erase_if(tensors_, [&](const Tensor& other) { return other.name == name; }) > 0, name.c_str());
  return *this;
}

GgufWriter::Tensor& GgufWriter::tensor(const std::string& name) {
  const auto found = std::ranges::find(tensors_, name, &Tensor::name);
  PKV_CHECK(found != tensors_.end(), name.c_str());
  return *found;
}

std::string GgufWriter::bytes() const {
  std::string file = "GGUF" + raw(version) + raw(uint64_t{tensors_.size()}) + raw(uint64_t{keys_.size()});
  for (const Key& key : keys_) file += raw_string(key.name) + raw(key.type) + key.value;
  size_t offset = 0;
  for (const Tensor& tensor : tensors_) {
    file += raw_string(tensor.name) + raw(static_cast<uint32_t>(tensor.dims.size()));
    for (int64_t dim : tensor.dims) file += raw(dim);
    file += raw(tensor.ggml_id) + raw(tensor.offset.value_or(uint64_t{offset}));
    offset += tensor.data.size() + padding(tensor.data.size(), alignment);
  }
  for (const Tensor& tensor : tensors_) {
    file.append(padding(file.size(), alignment), '\0');
    file += tensor.data;
  }
  return file;
}

size_t GgufWriter::data_bytes() const {
  size_t bytes = 0;
  for (const Tensor& tensor : tensors_) bytes += padding(bytes, alignment) + tensor.data.size();
  return bytes;
}

}  // namespace pkv::test
