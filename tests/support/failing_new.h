// operator new that fails, or stops what runs, where a test wants it to. Whoever links this replaces it, so such a test
// is a program of its own.
#pragma once

#include <cstdint>
#include <stop_token>

namespace pkv::test {

// Of the calling thread: after `allocations` more, `failures` in a row throw std::bad_alloc.
void fail_allocations(int64_t allocations, int64_t failures);
// Failures of the calling thread that have not come yet.
int64_t failures_left();
// Of the calling thread: after `allocations` more, the next requests `stop`, and succeeds; null: none does.
void stop_at_allocation(int64_t allocations, std::stop_source* stop);
// How many have come since that one; negative where it has not come.
int64_t allocations_since_stop();

}  // namespace pkv::test
