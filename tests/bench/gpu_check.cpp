// pkv-gpu-check: what only a device can show, with nothing but this program, the GPU library and a driver
// (scripts/gpu_check).
//
//   pkv-gpu-check [--device=cuda:0] [--filter=A,B] conformance
//       every operation case that has A or B in its name against the reference, in both modes
//   pkv-gpu-check [--device=cuda:0] [--filter=A,B] times
//       microseconds of every such case by the device's clock
//   pkv-gpu-check [--device=cuda:0] [--mib=512] ceiling
//       what a copy of so much and a prompt's product reach
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/reference/reference_backend.h"
#include "tests/kernels/operation_cases.h"

namespace pkv {
namespace {

struct CheckOptions {
  std::string device = "cuda:0", filter, what;
  int64_t mib = 512;
};

// Whether any word of the filter is in the name.
bool is_chosen(const std::string& name, std::string_view filter) {
  for (;;) {
    const size_t comma = filter.find(',');
    if (name.find(filter.substr(0, comma)) != std::string::npos) return true;
    if (comma == std::string_view::npos) return false;
    filter.remove_prefix(comma + 1);
  }
}

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
      if (!is_chosen(operation->name(), options.filter) || !operation->runs_on(*backend)) continue;
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
    if (!is_chosen(operation->name(), options.filter) || !operation->runs_on(*backend)) continue;
    const std::unique_ptr<PreparedCase> prepared = operation->prepare(*backend);
    if (prepared == nullptr) return 1;
    std::printf("%-64s %10.1f us\n", operation->name().c_str(), microseconds(*backend, [&] { prepared->run(); }));
  }
  return backend->status().ok() ? 0 : 1;
}

// A prompt's rows through a matrix of 16-bit floats, both as large as a chunk of them and a layer of an 8B model, or,
// beside small copies, small.
bool product(Backend& backend, int64_t mib) {
  const int64_t rows = std::min<int64_t>(2048, 4 * mib), inputs = 2 * rows, outputs = 7 * rows;
  std::mt19937 rng(1);
  std::vector<uint16_t> halves(static_cast<size_t>(inputs * outputs));
  for (uint16_t& half : halves) half = static_cast<uint16_t>(0x3c00 | (rng() & 0x83ff));  // of either sign, 1 to 2
  const auto weight =
      backend.prepare_weight({.data = halves.data(), .type = WeightType::kF16, .rows = outputs, .cols = inputs});
  const auto x = backend.allocate(rows, inputs, DType::kF32), out = backend.allocate(rows, outputs, DType::kF32);
  if (!weight.ok() || !x.ok() || !out.ok()) return false;
  std::vector<float> values(static_cast<size_t>(rows * inputs));
  for (float& value : values) value = static_cast<float>(rng()) * 0x1p-31f - 1;
  backend.upload(x->view(), values.data());
  const double time =
      microseconds(backend, [&] { backend.linear(x->view(), **weight, false, Phase::kPrefill, out->view()); });
  std::printf("product of %lld x %lld x %lld, as prompts have it: %.1f TFLOP/s\n", static_cast<long long>(rows),
              static_cast<long long>(inputs), static_cast<long long>(outputs),
              2e-6 * static_cast<double>(rows * inputs * outputs) / time);
  return true;
}

int ceiling(const CheckOptions& options) {
  const std::unique_ptr<Backend> backend = make(options, false);
  if (backend == nullptr) return 1;
  constexpr int64_t kCols = 1024;
  const int64_t rows = options.mib * (1 << 20) / (kCols * static_cast<int64_t>(sizeof(float)));
  const auto from = backend->allocate(rows, kCols, DType::kF32), to = backend->allocate(rows, kCols, DType::kF32);
  if (!from.ok() || !to.ok()) return 1;
  backend->fill(from->view(), 1);
  const double time = microseconds(*backend, [&] { backend->copy(to->view(), from->view()); });
  std::printf("copy on the device: %.0f GB/s read and written\n", 2e-3 * static_cast<double>(from->bytes()) / time);
  return product(*backend, options.mib) && backend->status().ok() ? 0 : 1;
}

bool parse(int count, char** arguments, CheckOptions& options) {
  for (int i = 1; i < count; ++i) {
    const std::string_view argument = arguments[i];
    if (argument.starts_with("--device=")) {
      options.device = argument.substr(argument.find('=') + 1);
    } else if (argument.starts_with("--filter=")) {
      options.filter = argument.substr(argument.find('=') + 1);
    } else if (argument.starts_with("--mib=")) {
      options.mib = std::atoll(argument.data() + argument.find('=') + 1);
      if (options.mib < 1) return false;
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
  std::fprintf(stderr, "usage: %s [--device=cuda:0] [--filter=A,B] [--mib=512] conformance|times|ceiling\n",
               arguments[0]);
  return 2;
}
