// SHA-256 of a file, with OpenSSL, which gRPC brings along.
#include <openssl/evp.h>

#include <array>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/loaded_model.h"

namespace pkv {

absl::StatusOr<std::string> file_sha256(const std::string& path, const std::stop_token& stop) {
  std::ifstream file(path, std::ios::binary);
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(), EVP_MD_CTX_free);
  bool good = file.is_open() && context != nullptr && EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr) == 1;
  std::vector<char> block(size_t{1} << 20);
  while (good && !file.eof()) {
    if (stop.stop_requested()) return absl::CancelledError("the digest was given up");
    file.read(block.data(), static_cast<std::streamsize>(block.size()));
    good = !file.bad() && EVP_DigestUpdate(context.get(), block.data(), static_cast<size_t>(file.gcount())) == 1;
  }
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest;
  unsigned length = 0;
  if (!good || EVP_DigestFinal_ex(context.get(), digest.data(), &length) != 1) {
    return absl::NotFoundError(absl::StrCat(path, ": cannot be read"));
  }
  constexpr char kHex[] = "0123456789abcdef";
  std::string text;
  for (unsigned i = 0; i < length; ++i) text.append({kHex[digest[i] >> 4], kHex[digest[i] & 15]});
  return text;
}

}  // namespace pkv
