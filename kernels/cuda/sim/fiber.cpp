// Switches stacks by hand: swapcontext() makes two system calls each time, ten times the cost of all the rest.
#include "kernels/cuda/sim/fiber.h"

#include <sys/mman.h>

#include <cstdint>

#include "kernels/check.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#define PKV_SIM_ASAN 1
#endif

#if !defined(__x86_64__)
#error "the simulator of CUDA kernels knows how to switch stacks on x86-64 only"
#endif

// Keeps what a callee has to keep (System V ABI) on the stack that is left, and the stack pointer in *save.
extern "C" void pkv_sim_switch_stack(void** save, void* load);
asm(R"(
.text
.globl pkv_sim_switch_stack
.type pkv_sim_switch_stack, @function
pkv_sim_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size pkv_sim_switch_stack, .-pkv_sim_switch_stack
)");

namespace pkv::sim {
namespace {

constexpr size_t kSavedRegisters = 6;

// Of this host thread: the fiber that runs, and where its resume() goes on.
thread_local Fiber* running = nullptr;
thread_local void* resumer = nullptr;
thread_local void (*first_call)() = nullptr;
#ifdef PKV_SIM_ASAN
thread_local const void* resumer_stack = nullptr;
thread_local size_t resumer_stack_bytes = 0;
#endif

void begin() {
#ifdef PKV_SIM_ASAN
  __sanitizer_finish_switch_fiber(nullptr, &resumer_stack, &resumer_stack_bytes);
#endif
  first_call();
  PKV_CHECK(false, "a fiber came to its end");
}

}  // namespace

Stacks::~Stacks() {
  if (memory_ != nullptr) munmap(memory_, count_ * (kBytes + kGuard));
}

void Stacks::require(size_t count) {
  if (count <= count_) return;
  if (memory_ != nullptr) munmap(memory_, count_ * (kBytes + kGuard));
  void* memory = mmap(nullptr, count * (kBytes + kGuard), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  PKV_CHECK(memory != MAP_FAILED, "no address space for stacks");
  memory_ = static_cast<std::byte*>(memory);
  count_ = count;
  for (size_t i = 0; i < count; ++i) mprotect(memory_ + i * (kBytes + kGuard), kGuard, PROT_NONE);
}

void Fiber::start(std::byte* stack_bottom, void (*body)()) {
  // As if begin() had been called, from nowhere, by a function that kept its registers: six of them, the place to
  // return to, and begin()'s own return address.
  auto* top = reinterpret_cast<uintptr_t*>(stack_bottom + Stacks::kBytes) - 1;
  *top = 0;
  *--top = reinterpret_cast<uintptr_t>(&begin);
  for (size_t i = 0; i < kSavedRegisters; ++i) *--top = 0;
  stack_pointer_ = top;
  stack_bottom_ = stack_bottom;
  sanitizer_state_ = nullptr;
  first_call = body;
}

void Fiber::resume() {
  running = this;
#ifdef PKV_SIM_ASAN
  void* state = nullptr;
  __sanitizer_start_switch_fiber(&state, stack_bottom_, Stacks::kBytes);
#endif
  pkv_sim_switch_stack(&resumer, stack_pointer_);
#ifdef PKV_SIM_ASAN
  __sanitizer_finish_switch_fiber(state, nullptr, nullptr);
#endif
}

void Fiber::pause() {
  Fiber* self = running;
#ifdef PKV_SIM_ASAN
  __sanitizer_start_switch_fiber(&self->sanitizer_state_, resumer_stack, resumer_stack_bytes);
#endif
  pkv_sim_switch_stack(&self->stack_pointer_, resumer);
#ifdef PKV_SIM_ASAN
  __sanitizer_finish_switch_fiber(self->sanitizer_state_, &resumer_stack, &resumer_stack_bytes);
#endif
}

}  // namespace pkv::sim
