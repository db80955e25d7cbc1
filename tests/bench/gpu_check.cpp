// pkv-gpu-check: what only a device can show, with nothing but this program, the GPU library and a driver
// (scripts/gpu_check).
//
//   pkv-gpu-check [--device=cuda:0] [--filter=TEXT] conformance   every operation case against the reference, both
//   modes pkv-gpu-check [--device=cuda:0] [--filter=TEXT] times         microseconds of every case, by the device's
//   clock pkv-gpu-check [--device=cuda:0] ceiling                       what a copy on the device reaches
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>

#include "kernels/reference/reference_backend.h"
#include "tests/kernels/operation_cases.h"

namespace pkv {
namespace {

struct CheckOptions {
  std::string device = "cuda:0", filter, what;
};

bool same_bits(const Outputs& a, const Outputs& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    const size_t bytes = a[i].floats.size() * sizeof(float);
    if (a[i].exact != b[i].exact || a[i].floats.size() != b[i].floats.size()) return false;
    if (bytes != 0 && std::memcmp(a[i].floats.data(), b[i].floats.data(), bytes) != 0) return false;
  }
  return true;
}

std::unique_ptr<Backend> make(const CheckOptions& options, bool exact) {
  auto backend = make_backend({.device = options.device, .exact = exact});
  if (!backend.ok()) {
    std::printf("no backend: %s\n", std::string(backend.status().message()).c_str());
    return nullptr;
  }
  std::printf("%s\n", (*backend)->description().c_str());
  return *std::move(backend);
}

Outputs run_once(const OperationCase& operation, Backend& backend) {
  const std::unique_ptr<PreparedCase> prepared = operation.prepare(backend);
  if (prepared == nullptr) return {};
  prepared->run();
  return prepared->outputs();
}

// Each case twice, which has to give the same bits. A failed device ends it.
int conformance(const CheckOptions& options) {
  const std::unique_ptr<Backend> reference = make_reference_backend();
  int64_t wrong = 0, cases = 0;
  for (const bool exact : {true, false}) {
    const std::unique_ptr<Backend> backend = make(options, exact);
    if (backend == nullptr) return 1;
    for (const auto& operation : operation_cases()) {
      if (operation->name().find(options.filter) == std::string::npos) continue;
      ++cases;
      const Outputs expected = run_once(*operation, *reference);
      const Outputs first = run_once(*operation, *backend), second = run_once(*operation, *backend);
      if (const absl::Status status = backend->status(); !status.ok()) {
        std::printf("%s: %s\n", operation->name().c_str(), std::string(status.message()).c_str());
        return 1;
      }
      std::string difference = operation->difference(
          expected, first, operation->tolerances(expected, exact ? Accuracy::kExact : Accuracy::kDefault));
      if (difference.empty() && !same_bits(first, second)) difference = "twice is not the same";
      if (difference.empty()) continue;
      ++wrong;
      std::printf("WRONG %s %s: %s\n", exact ? "exact" : "default", operation->name().c_str(), difference.c_str());
    }
  }
  std::printf("%lld of %lld cases are wrong\n", static_cast<long long>(wrong), static_cast<long long>(cases));
  return wrong == 0 && cases > 0 ? 0 : 1;
}

// The shortest of several runs, in microseconds.
template <typename Work>
double microseconds(Backend& backend, const Work& work) {
  constexpr int kRuns = 5;
  double shortest = 1e30;
  for (int run = 0; run < kRuns; ++run) {
    const int64_t before = backend.mark();
    work();
    const int64_t after = backend.mark();
    backend.sync();
    shortest = std::min(shortest, 1e6 * backend.elapsed(before, after));
  }
  return shortest;
}

int times(const CheckOptions& options) {
  const std::unique_ptr<Backend> backend = make(options, false);
  if (backend == nullptr) return 1;
  for (const auto& operation : operation_cases()) {
    if (operation->name().find(options.filter) == std::string::npos) continue;
    const std::unique_ptr<PreparedCase> prepared = operation->prepare(*backend);
    if (prepared == nullptr) return 1;
    std::printf("%-64s %10.1f us\n", operation->name().c_str(), microseconds(*backend, [&] { prepared->run(); }));
  }
  return backend->status().ok() ? 0 : 1;
}

int ceiling(const CheckOptions& options) {
  const std::unique_ptr<Backend> backend = make(options, false);
  if (backend == nullptr) return 1;
  constexpr int64_t kRows = 1024, kCols = 128 << 10;  // 512 MiB
  const auto from = backend->allocate(kRows, kCols, DType::kF32), to = backend->allocate(kRows, kCols, DType::kF32);
  if (!from.ok() || !to.ok()) return 1;
  backend->fill(from->view(), 1);
  const double time = microseconds(*backend, [&] { backend->copy(to->view(), from->view()); });
  std::printf("copy on the device: %.0f GB/s read and written\n", 2e-3 * static_cast<double>(from->bytes()) / time);
  return backend->status().ok() ? 0 : 1;
}

bool parse(int count, char** arguments, CheckOptions& options) {
  for (int i = 1; i < count; ++i) {
    const std::string_view argument = arguments[i];
    if (argument.starts_with("--device=")) {
      options.device = argument.substr(argument.find('=') + 1);
    } else if (argument.starts_with("--filter=")) {
      options.filter = argument.substr(argument.find('=') + 1);
    } else if (options.what.empty() && !argument.starts_with("-")) {
      options.what = argument;
    } else {
      return false;
    }
  }
  return true;
}

}  // namespace
}  // namespace pkv

int main(int count, char** arguments) {
  pkv::CheckOptions options;
  if (pkv::parse(count, arguments, options)) {
    if (options.what == "conformance") return pkv::conformance(options);
    if (options.what == "times") return pkv::times(options);
    if (options.what == "ceiling") return pkv::ceiling(options);
  }
  std::fprintf(stderr, "usage: %s [--device=cuda:0] [--filter=TEXT] conformance|times|ceiling\n", arguments[0]);
  return 2;
}
