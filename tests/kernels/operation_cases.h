// The one list of operation cases: every Backend operation with the shapes that matter. The conformance test runs it on
// every backend against the reference, the operations benchmark times it.
#pragma once

#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels/backend.h"

namespace pkv {

// What a backend may deviate from the reference. kExact: float32 arithmetic, BackendOptions::exact. kDefault: besides
// that, activations and weights of matrix products and attention may be rounded to bfloat16, or activations to int8 per
// group of 32.
enum class Accuracy : uint8_t { kExact, kDefault };

// One result of an operation, copied to the host.
struct Output {
  std::string name;
  std::vector<float> floats;  // compared with a tolerance each
  std::vector<int32_t>
      exact;  // integers or bit patterns that must be equal: indices, cache entries, memory not to be touched
};
using Outputs = std::vector<Output>;

// The largest allowed absolute difference of each float of each output.
using Tolerances = std::vector<std::vector<double>>;

// A case with its inputs on one backend.
class PreparedCase {
 public:
  virtual ~PreparedCase() = default;
  virtual void
  run() = 0;  // the operation once; may be repeated for timing, which may change what it works on, not how much
  virtual Outputs outputs() = 0;
};

class OperationCase {
 public:
  explicit OperationCase(std::string name) : name_(std::move(name)) {}
  virtual ~OperationCase() = default;
  const std::string& name() const { return name_; }  // operation/what/shape
  virtual bool runs_on(const Backend& /*backend*/) const { return true; }
  // Of a backend that was made with these.
  virtual Accuracy accuracy(const BackendOptions& options) const {
    return options.exact ? Accuracy::kExact : Accuracy::kDefault;
  }
  virtual std::unique_ptr<PreparedCase> prepare(Backend& backend) const = 0;
  Tolerances tolerances(const Outputs& expected, Accuracy accuracy) const;
  // Empty where `actual` is within the tolerances, else what is wrong first and worst.
  virtual std::string difference(const Outputs& expected, const Outputs& actual, const Tolerances& tolerances) const;

 protected:
  // For each float of expected[output]; called only where there are floats. As it is: none for a case of integers and
  // bits.
  virtual std::vector<double> tolerance(const Outputs& /*expected*/, size_t /*output*/, Accuracy /*accuracy*/) const {
    return {};
  }
  std::mt19937 rng() const;  // always the same numbers for one case

 private:
  std::string name_;
};

using OperationCases = std::vector<std::unique_ptr<OperationCase>>;
OperationCases operation_cases();

// The groups of the list, one file each.
void add_dense_cases(OperationCases& cases);
void add_linear_cases(OperationCases& cases);
void add_cache_cases(OperationCases& cases);
void add_key_cases(OperationCases& cases);
void add_attention_cases(OperationCases& cases);
void add_observation_cases(OperationCases& cases);
void add_selection_cases(OperationCases& cases);
void add_eviction_cases(OperationCases& cases);
void add_token_cases(OperationCases& cases);
void add_sampling_cases(OperationCases& cases);

}  // namespace pkv
