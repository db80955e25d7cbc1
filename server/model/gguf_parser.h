// The parser behind GgufFile: from the bytes of a GGUF file to its keys and tensors, with every length, count and
// offset checked against the bytes that are there. Separate from the mapping so that it can be tested on bytes in
// memory.
#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/model/gguf.h"

namespace pkv {

struct GgufContents {
  std::map<std::string, GgufValue, std::less<>> values;
  std::vector<GgufTensor> tensors;  // data points into the parsed bytes
};

// Memory use is bounded by a small multiple of the file's size whatever the file claims. INVALID_ARGUMENT naming the
// key or tensor for a malformed file, UNIMPLEMENTED for a well-formed one with something this build does not read
// (version 1, big-endian, nested arrays, a weight format without a row in quant_table()).
absl::StatusOr<GgufContents> parse_gguf(std::span<const std::byte> file);

}  // namespace pkv
