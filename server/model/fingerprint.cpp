// FNV-1a (Fowler, Noll, Vo), 64 bits, over what a loaded file's pages hold anyway.
#include "server/model/fingerprint.h"

#include <algorithm>
#include <cstdint>
#include <span>

#include "absl/strings/str_format.h"
#include "kernels/quant.h"

namespace pkv {
namespace {

// Of every tensor, from its middle.
constexpr size_t kPieceBytes = 512;

class Fnv {
 public:
  void add(std::span<const std::byte> bytes) {
    for (const std::byte byte : bytes) state_ = (state_ ^ std::to_integer<uint64_t>(byte)) * 0x100000001b3u;
  }
  void add(std::string_view text) { add(std::as_bytes(std::span(text))); }
  void add(int64_t number) {
    for (int shift = 0; shift < 64; shift += 8) {
      state_ = (state_ ^ (static_cast<uint64_t>(number) >> shift & 0xff)) * 0x100000001b3u;
    }
  }
  uint64_t state() const { return state_; }

 private:
  uint64_t state_ = 0xcbf29ce484222325u;
};

}  // namespace

std::string model_fingerprint(const GgufFile& file) {
  Fnv fnv;
  for (const GgufTensor& tensor : file.tensors()) {
    fnv.add(std::string_view(tensor.name));
    fnv.add(std::string_view(quant_traits(tensor.type).name));
    for (const int64_t extent : tensor.dims) fnv.add(extent);
    const size_t count = std::min(kPieceBytes, tensor.data.size());
    fnv.add(tensor.data.subspan((tensor.data.size() - count) / 2, count));
  }
  return absl::StrFormat("%016x", fnv.state());
}

}  // namespace pkv
