// Weights from a GGUF file into a backend.
#include "server/model/weight_loader.h"

#include <algorithm>
#include <map>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/quant.h"
#include "server/model/errors.h"

namespace pkv {

WeightLoader::WeightLoader(const GgufFile& file, Backend& backend, const Loading& loading)
    : file_(file), backend_(backend), loading_(loading) {
  for (const GgufTensor& tensor : file.tensors()) all_reads_ += tensor.data.size();
}

void WeightLoader::done_with(const GgufTensor& tensor) {
  read_ += tensor.data.size();
  if (loading_.progress) loading_.progress(read_, all_reads_);
}

void WeightLoader::fail(const std::string& name, const absl::Status& status) {
  if (status_.ok()) {
    status_ = absl::Status(status.code(), absl::StrCat("tensor '", name, "': ", std::string(status.message())));
  }
}

const GgufTensor* WeightLoader::find(const std::string& name, std::span<const int64_t> dims) {
  if (status_.ok() && loading_.stop.stop_requested()) status_ = absl::CancelledError("loading was given up");
  if (!status_.ok()) return nullptr;
  known_.insert(name);
  absl::StatusOr<const GgufTensor*> tensor = file_.tensor(name, dims);
  if (!tensor.ok()) {
    status_ = tensor.status();
    return nullptr;
  }
  return *tensor;
}

std::unique_ptr<Weight> WeightLoader::matrix(const std::string& name, int64_t inputs, int64_t outputs) {
  return load(name, inputs, outputs, /*tolerant=*/false);
}

std::unique_ptr<Weight> WeightLoader::tolerant_matrix(const std::string& name, int64_t inputs, int64_t outputs) {
  return load(name, inputs, outputs, /*tolerant=*/true);
}

std::unique_ptr<Weight> WeightLoader::load(const std::string& name, int64_t inputs, int64_t outputs, bool tolerant) {
  const GgufTensor* tensor = find(name, std::vector{inputs, outputs});
  if (tensor == nullptr) return nullptr;
  WeightSource source = tensor->source();
  source.tolerant = tolerant;
  absl::StatusOr<std::unique_ptr<Weight>> weight = backend_.prepare_weight(source);
  if (!weight.ok()) {
    fail(name, weight.status());
    return nullptr;
  }
  bytes_ += (*weight)->bytes();
  done_with(*tensor);
  return *std::move(weight);
}

Tensor WeightLoader::vector(const std::string& name, int64_t size) {
  const GgufTensor* tensor = find(name, std::vector{size});
  if (tensor == nullptr) return {};
  absl::StatusOr<Tensor> result = backend_.allocate(1, size, DType::kF32);
  if (!result.ok()) {
    fail(name, result.status());
    return {};
  }
  std::vector<float> values(static_cast<size_t>(size));
  quant_traits(tensor->type).decode(tensor->data.data(), values.data(), size);
  backend_.upload(result->view(), values.data());
  bytes_ += result->bytes();
  done_with(*tensor);
  return *std::move(result);
}

Tensor WeightLoader::optional_vector(const std::string& name, int64_t size) {
  return file_.find_tensor(name) == nullptr ? Tensor() : vector(name, size);
}

absl::Status WeightLoader::finish() const {
  if (!status_.ok()) return status_;
  for (const GgufTensor& tensor : file_.tensors()) {
    if (!known_.contains(tensor.name)) {
      return unimplemented("tensor '", tensor.name, "': this build does not know what to do with it");
    }
  }
  return absl::OkStatus();
}

std::string WeightLoader::most_frequent_format() const {
  std::map<WeightType, size_t> bytes;
  for (const GgufTensor& tensor : file_.tensors()) bytes[tensor.type] += tensor.data.size();
  const auto most = std::ranges::max_element(bytes, {}, [](const auto& entry) { return entry.second; });
  return most == bytes.end() ? std::string() : std::string(quant_traits(most->first).name);
}

}  // namespace pkv
