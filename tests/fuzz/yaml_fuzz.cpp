// Configuration files.
#include <string>

#include "server/config/config.h"
#include "tests/fuzz/fuzz_target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  (void)pkv::parse_config(text, {.path = "server.yaml"});
  return 0;
}
