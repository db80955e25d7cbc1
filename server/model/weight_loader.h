// Takes the tensors of an architecture out of a GGUF file into a backend. Keeps the first error, so that an
// architecture can list what it needs without asking after every line, and knows in the end whether the file holds
// tensors nobody asked for.
#pragma once

#include <cstddef>
#include <memory>
#include <set>
#include <string>

#include "absl/status/status.h"
#include "kernels/backend.h"
#include "server/model/gguf.h"
#include "server/model/loading.h"

namespace pkv {

class WeightLoader {
 public:
  // Once `loading.stop` is requested every further tensor is an error. All three must outlive it.
  WeightLoader(const GgufFile& file, Backend& backend, const Loading& loading);

  // A weight matrix [outputs, inputs]; nullptr after an error.
  std::unique_ptr<Weight> matrix(const std::string& name, int64_t inputs, int64_t outputs);
  // Likewise, one whose prompt products may be less exact (WeightSource::tolerant).
  std::unique_ptr<Weight> tolerant_matrix(const std::string& name, int64_t inputs, int64_t outputs);
  // A vector as float32 [1, size], whatever format the file has it in; empty after an error.
  Tensor vector(const std::string& name, int64_t size);
  // Empty where the file has no such tensor.
  Tensor optional_vector(const std::string& name, int64_t size);
  // Notes a tensor as known that is read elsewhere or not needed.
  void ignore(const std::string& name) { known_.insert(name); }

  // INVALID_ARGUMENT naming a tensor that is missing or of other dimensions, RESOURCE_EXHAUSTED naming the one there
  // was no memory for, or, when all is well, UNIMPLEMENTED naming a tensor of the file that was never asked for: it
  // would change the model's results in a way the architecture does not know of. CANCELLED after a stop.
  absl::Status finish() const;
  size_t bytes() const { return bytes_; }    // resident in the backend so far
  std::string most_frequent_format() const;  // by bytes, e.g. "Q4_1"

 private:
  const GgufTensor* find(const std::string& name, std::span<const int64_t> dims);
  std::unique_ptr<Weight> load(const std::string& name, int64_t inputs, int64_t outputs, bool tolerant);
  void fail(const std::string& name, const absl::Status& status);
  void done_with(const GgufTensor& tensor);

  const GgufFile& file_;
  Backend& backend_;
  const Loading& loading_;
  std::set<std::string, std::less<>> known_;
  absl::Status status_;
  size_t bytes_ = 0;
  uint64_t read_ = 0;       // bytes of the file's tensors
  uint64_t all_reads_ = 0;  // of all of them
};

}  // namespace pkv
