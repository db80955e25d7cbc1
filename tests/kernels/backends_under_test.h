// The backends, instruction-set paths and modes that this machine can run.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/backend.h"

namespace pkv {

struct BackendUnderTest {
  std::string name;  // cpu/avx2/exact/2_threads
  BackendOptions options;
  std::unique_ptr<Backend> backend;
  // What the mode computes in another way than the exact one of the same device; empty: perhaps anything.
  std::vector<std::string> own_operations = {};

  // Whether a case (operation/what/shape) tells more of it than of the exact mode.
  bool is_for(std::string_view operation) const {
    return own_operations.empty() || std::ranges::count(own_operations, operation.substr(0, operation.find('/'))) > 0;
  }
  bool same_path(const BackendUnderTest& other) const {
    return options.device == other.options.device && options.isa == other.options.isa &&
           options.exact == other.options.exact;
  }
};

// Every device, path and mode of kernels of its own, with each number of threads, those of one path and mode together.
// Paths that make_backend refuses with FAILED_PRECONDITION are left out; which ones run is printed. Any other refusal
// ends the program.
std::vector<BackendUnderTest> backends_under_test(std::initializer_list<int32_t> threads);

}  // namespace pkv
