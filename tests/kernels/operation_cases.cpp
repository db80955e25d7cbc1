// Collects the groups of operation cases and compares outputs.
#include "tests/kernels/operation_cases.h"

#include <cmath>
#include <functional>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"

namespace pkv {
namespace {

std::string float_difference(const Output& expected, const Output& actual, const std::vector<double>& tolerance) {
  if (expected.floats.size() != actual.floats.size()) return absl::StrCat(expected.name, ": another number of values");
  PKV_CHECK(tolerance.size() == expected.floats.size(), "a tolerance for each value");
  size_t wrong = 0, worst = 0;
  double worst_ratio = 0;
  for (size_t i = 0; i < expected.floats.size(); ++i) {
    const double want = expected.floats[i], got = actual.floats[i];
    if (want == got || std::abs(want - got) <= tolerance[i]) continue;
    // A NaN is worse than anything.
    const double ratio = std::isnan(got) ? INFINITY : std::abs(want - got) / std::max(tolerance[i], 1e-300);
    if (wrong++ == 0 || ratio > worst_ratio) worst = i, worst_ratio = ratio;
  }
  if (wrong == 0) return "";
  return absl::StrCat(expected.name, ": ", wrong, " of ", expected.floats.size(), " values off; worst at ", worst, ": ",
                      actual.floats[worst], " instead of ", expected.floats[worst], ", allowed +-", tolerance[worst]);
}

std::string exact_difference(const Output& expected, const Output& actual) {
  if (expected.exact.size() != actual.exact.size()) return absl::StrCat(expected.name, ": another number of integers");
  size_t wrong = 0, first = 0;
  for (size_t i = 0; i < expected.exact.size(); ++i) {
    if (expected.exact[i] != actual.exact[i] && wrong++ == 0) first = i;
  }
  if (wrong == 0) return "";
  return absl::StrCat(expected.name, ": ", wrong, " of ", expected.exact.size(),
                      " integers or bit patterns differ; first at ", first, ": ",
                      absl::Hex(static_cast<uint32_t>(actual.exact[first])), " instead of ",
                      absl::Hex(static_cast<uint32_t>(expected.exact[first])));
}

}  // namespace

std::mt19937 OperationCase::rng() const {
  uint32_t seed = 2166136261u;  // FNV-1a of the name: independent of the list's order and of the standard library
  for (char c : name_) seed = (seed ^ static_cast<uint8_t>(c)) * 16777619u;
  return std::mt19937(seed);
}

Tolerances OperationCase::tolerances(const Outputs& expected, Accuracy accuracy) const {
  Tolerances all(expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    if (!expected[i].floats.empty()) all[i] = tolerance(expected, i, accuracy);
  }
  return all;
}

std::string OperationCase::difference(const Outputs& expected, const Outputs& actual,
                                      const Tolerances& tolerances) const {
  if (expected.size() != actual.size()) return "another number of outputs";
  for (size_t i = 0; i < expected.size(); ++i) {
    std::string wrong = exact_difference(expected[i], actual[i]);
    if (wrong.empty()) wrong = float_difference(expected[i], actual[i], tolerances[i]);
    if (!wrong.empty()) return wrong;
  }
  return "";
}

OperationCases operation_cases() {
  OperationCases cases;
  add_dense_cases(cases);
  add_linear_cases(cases);
  add_cache_cases(cases);
  add_key_cases(cases);
  add_attention_cases(cases);
  add_observation_cases(cases);
  add_selection_cases(cases);
  add_eviction_cases(cases);
  add_token_cases(cases);
  add_sampling_cases(cases);
  return cases;
}

}  // namespace pkv
