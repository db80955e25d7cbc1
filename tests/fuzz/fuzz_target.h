// What libFuzzer and run_corpus.cpp call with one input.
#pragma once

#include <cstddef>
#include <cstdint>

// Returns 0. Harm shows itself: by a sanitizer, PKV_CHECK, memory or time.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
