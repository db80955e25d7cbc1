// Reading the values of a GGUF file's keys. A part of the parser.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "server/model/gguf.h"

namespace pkv {

static_assert(std::endian::native == std::endian::little);

// Reads forward through the file; false where that does not hold what is asked for.
class GgufCursor {
 public:
  explicit GgufCursor(std::span<const std::byte> bytes) : bytes_(bytes) {}
  size_t offset() const { return offset_; }
  size_t remaining() const { return bytes_.size() - offset_; }

  template <typename T>
  bool read(T* out) {
    if (remaining() < sizeof(T)) return false;
    std::memcpy(out, bytes_.data() + offset_, sizeof(T));
    offset_ += sizeof(T);
    return true;
  }
  bool read_string(std::string* out) {
    uint64_t length = 0;
    if (!read(&length) || length > remaining()) return false;
    out->assign(reinterpret_cast<const char*>(bytes_.data() + offset_), length);
    offset_ += length;
    return true;
  }

 private:
  std::span<const std::byte> bytes_;
  size_t offset_ = 0;
};

// A name as an error message can show it, whatever bytes it consists of: quoted, escaped, cut.
std::string printable(std::string_view name);

// The value of type number `type` that begins at the cursor. Errors begin with the key's printable `name`. Memory use
// is bounded by a small multiple of what is left of the file.
absl::StatusOr<GgufValue> read_gguf_value(GgufCursor& cursor, uint32_t type, std::string_view name);

}  // namespace pkv
