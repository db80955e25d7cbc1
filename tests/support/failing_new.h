// operator new that fails where a test wants it to. Whoever links this replaces it, so such a test is a program of its
// own.
#pragma once

#include <cstdint>

namespace pkv::test {

// Of the calling thread: after `allocations` more, `failures` in a row throw std::bad_alloc.
void fail_allocations(int64_t allocations, int64_t failures);
// Failures of the calling thread that have not come yet.
int64_t failures_left();

}  // namespace pkv::test
