// Times every operation case on one backend and on the reference, in turns, and prints the ratio of the two.
//
//   operations_bench [--filter=TEXT] [--device=cpu] [--isa=avx2] [--threads=2] [--exact]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <string_view>

#include "kernels/reference/reference_backend.h"
#include "tests/kernels/operation_cases.h"

namespace pkv {
namespace {

struct BenchOptions {
  BackendOptions backend;
  std::string filter;  // part of a case's name
};

bool parse(int count, char** arguments, BenchOptions& options) {
  for (int i = 1; i < count; ++i) {
    const std::string_view argument = arguments[i];
    const size_t equals = argument.find('=');
    const std::string_view key = argument.substr(0, equals);
    const std::string value(equals == argument.npos ? "" : argument.substr(equals + 1));
    if (key == "--filter") {
      options.filter = value;
    } else if (key == "--device") {
      options.backend.device = value;
    } else if (key == "--isa") {
      options.backend.isa = value;
    } else if (key == "--threads") {
      options.backend.threads = std::atoi(value.c_str());
    } else if (key == "--exact") {
      options.backend.exact = true;
    } else {
      return false;
    }
  }
  return true;
}

double seconds_of(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// One case on one backend; the fastest of several measurements, each long enough for the clock.
class Stopwatch {
 public:
  Stopwatch(Backend& backend, std::unique_ptr<PreparedCase> prepared)
      : backend_(backend), prepared_(std::move(prepared)) {
    constexpr double kEnough = 2e-3;
    double once = measure();  // also the first touch of all memory
    while ((once = measure()) < kEnough && repeats_ < 1 << 20) repeats_ *= once < kEnough / 8 ? 8 : 2;
  }
  void lap() { fastest_ = std::min(fastest_, measure() / repeats_); }
  double fastest_seconds() const { return fastest_; }

 private:
  double measure() {
    return seconds_of([this] {
      for (int i = 0; i < repeats_; ++i) prepared_->run();
      backend_.sync();
    });
  }
  Backend& backend_;
  std::unique_ptr<PreparedCase> prepared_;
  int repeats_ = 1;
  double fastest_ = 1e30;
};

int run(const BenchOptions& options) {
  auto backend = make_backend(options.backend);
  if (!backend.ok()) {
    std::fprintf(stderr, "%s\n", backend.status().ToString().c_str());
    return 1;
  }
  const std::unique_ptr<Backend> reference = make_reference_backend();
  std::printf("%s against %s\n", (*backend)->description().c_str(), reference->description().c_str());
  std::printf("%-64s %14s %14s %8s\n", "case", "reference us", "backend us", "ratio");
  for (const auto& operation : operation_cases()) {
    if (operation->name().find(options.filter) == std::string::npos || !operation->runs_on(**backend)) continue;
    std::unique_ptr<PreparedCase> slow = operation->prepare(*reference), fast = operation->prepare(**backend);
    if (slow == nullptr || fast == nullptr) {
      std::fprintf(stderr, "%s: no memory\n", operation->name().c_str());
      return 1;
    }
    Stopwatch reference_watch(*reference, std::move(slow)), backend_watch(**backend, std::move(fast));
    constexpr int kLaps = 5;
    for (int lap = 0; lap < kLaps; ++lap) {
      if (lap == 0 || reference_watch.fastest_seconds() < 0.1) reference_watch.lap();
      backend_watch.lap();
    }
    std::printf("%-64s %14.1f %14.1f %8.1f\n", operation->name().c_str(), reference_watch.fastest_seconds() * 1e6,
                backend_watch.fastest_seconds() * 1e6,
                reference_watch.fastest_seconds() / backend_watch.fastest_seconds());
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace
}  // namespace pkv

int main(int count, char** arguments) {
  pkv::BenchOptions options;
  if (!pkv::parse(count, arguments, options)) {
    std::fprintf(stderr, "usage: %s [--filter=TEXT] [--device=cpu] [--isa=avx2] [--threads=2] [--exact]\n",
                 arguments[0]);
    return 2;
  }
  return pkv::run(options);
}
