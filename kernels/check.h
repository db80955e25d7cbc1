// Aborts with a message for our own bugs; what a caller or the environment may cause is an absl::Status instead.
#pragma once

#include <cstdio>
#include <cstdlib>

#define PKV_CHECK(condition, message)                                                                 \
  do {                                                                                                \
    if (!(condition)) [[unlikely]] {                                                                  \
      std::fprintf(stderr, "%s:%d: check failed: %s: %s\n", __FILE__, __LINE__, #condition, message); \
      std::abort();                                                                                   \
    }                                                                                                 \
  } while (false)
