// Rounds keys and values to an entry format and puts them into a page.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/attention/attention_kernels.h"
#include "kernels/entry_format.h"

namespace pkv {

// Entries as float32, one behind the other.
struct FloatEntries {
  const float* keys = nullptr;  // [count, head_dim]
  int64_t key_stride = 0;       // floats from one to the next
  const float* values = nullptr;
  int64_t value_stride = 0;
  int32_t count = 0;  // at most EntryWriter::kMostEntries
};

class EntryWriter {
 public:
  static constexpr int32_t kMostEntries = 16;
  static constexpr int64_t scratch_bytes(int32_t head_dim) { return int64_t{kMostEntries + 1} * head_dim * 4; }

  // `scratch` has scratch_bytes() and is 4-aligned; no two writers work in the same.
  EntryWriter(const AttentionKernels& kernels, std::byte* scratch) : kernels_(kernels), scratch_(scratch) {}

  // To the places [place, place + count) of a page.
  void write(const PageLayout& layout, std::byte* page, int32_t place, const FloatEntries& entries) const;

 private:
  const AttentionKernels& kernels_;
  std::byte* scratch_;
};

}  // namespace pkv
