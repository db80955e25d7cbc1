#include "tests/support/failing_new.h"

#include <cstdlib>
#include <new>

namespace {

thread_local int64_t t_left = 0;
thread_local int64_t t_failures = 0;
thread_local int64_t t_left_to_stop = 0;
thread_local std::stop_source* t_stop = nullptr;

void* allocate(std::size_t bytes) {
  if (t_stop != nullptr && t_left_to_stop-- == 0) t_stop->request_stop();
  if (t_failures > 0) {
    if (t_left == 0) {
      --t_failures;
      throw std::bad_alloc();
    }
    --t_left;
  }
  if (void* memory = std::malloc(bytes)) return memory;
  throw std::bad_alloc();
}

}  // namespace

void* operator new(std::size_t bytes) { return allocate(bytes); }
// Whoever takes no for an answer is not asked to fail.
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept { return std::malloc(bytes); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace pkv::test {

void fail_allocations(int64_t allocations, int64_t failures) {
  t_left = allocations;
  t_failures = failures;
}

int64_t failures_left() { return t_failures; }

void stop_at_allocation(int64_t allocations, std::stop_source* stop) {
  t_left_to_stop = allocations;
  t_stop = stop;
}

int64_t allocations_since_stop() { return -t_left_to_stop - 1; }

}  // namespace pkv::test
