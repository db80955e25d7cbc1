// Memory that nobody may touch: AddressSanitizer stops whoever does, and without it a pattern tells of writes
// afterwards.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace pkv::sim {

constexpr unsigned char kRedzone = 0xff;  // NaN, for whoever reads it

inline void open_redzone([[maybe_unused]] std::byte* at, [[maybe_unused]] size_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(at, bytes);
#endif
}

inline void close_redzone(std::byte* at, size_t bytes) {
  open_redzone(at, bytes);
  std::memset(at, kRedzone, bytes);
#if defined(__SANITIZE_ADDRESS__)
  __asan_poison_memory_region(at, bytes);
#endif
}

// Whether it is as it was when it was closed.
inline bool redzone_sound([[maybe_unused]] const std::byte* at, [[maybe_unused]] size_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
  return true;  // otherwise the process has ended
#else
  return std::all_of(at, at + bytes, [](std::byte byte) { return byte == std::byte{kRedzone}; });
#endif
}

}  // namespace pkv::sim
