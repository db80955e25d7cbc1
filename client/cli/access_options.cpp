#include "client/cli/access_options.h"

#include <algorithm>
#include <cstdlib>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/cli/command_support.h"

namespace pkv::client {
namespace {

constexpr char kKeyVariable[] = "PYRAMIDKV_API_KEY";

// A key as a header can carry it.
std::string take_key(const std::string& text, const std::string& source, Access& access) {
  access.api_key = std::string(absl::StripAsciiWhitespace(text));
  if (!access.api_key.empty() && std::ranges::all_of(access.api_key, absl::ascii_isgraph)) return "";
  return absl::StrCat(source, ": must hold one key, of letters, digits and punctuation");
}

std::string read_key(const AccessOptions& options, Access& access) {
  if (!options.api_key_file.empty()) {
    std::string text;
    if (!read_all(options.api_key_file, text)) {
      return absl::StrCat("--api-key-file: ", cannot_read(options.api_key_file));
    }
    return take_key(text, absl::StrCat("--api-key-file: ", options.api_key_file), access);
  }
  const char* key = std::getenv(kKeyVariable);
  return key == nullptr || *key == '\0' ? "" : take_key(key, kKeyVariable, access);
}

// A PEM file with a `label` in it, which gRPC does not say is missing.
std::string read_pem(const std::string& flag, const std::string& file, const std::string& label, std::string& text) {
  if (file.empty()) return "";
  if (!read_all(file, text)) return absl::StrCat(flag, ": ", cannot_read(file));
  if (absl::StrContains(text, "-----BEGIN ") && absl::StrContains(text, absl::StrCat(label, "-----"))) return "";
  return absl::StrCat(flag, ": ", file, " holds no ", label, " in PEM");
}

}  // namespace

void add_access_options(CLI::App& app, AccessOptions& options) {
  constexpr char kAccess[] = "Access";
  app.add_option("--api-key-file", options.api_key_file, "File with the API key; without it $PYRAMIDKV_API_KEY")
      ->type_name("FILE")
      ->envname("PYRAMIDKV_API_KEY_FILE")
      ->group(kAccess);
  app.add_flag("--tls", options.tls, "Speak TLS, which the next three do too")->group(kAccess);
  app.add_option("--ca", options.ca, "Authorities that may have signed the server's certificate (PEM) [the system's]")
      ->type_name("FILE")
      ->group(kAccess);
  CLI::Option* certificate =
      app.add_option("--cert", options.certificate, "The client's certificate (PEM), where the server wants one")
          ->type_name("FILE")
          ->group(kAccess);
  CLI::Option* key =
      app.add_option("--key", options.private_key, "Its private key (PEM)")->type_name("FILE")->group(kAccess);
  certificate->needs(key);
  key->needs(certificate);
}

std::string read_access(const AccessOptions& options, Access& access) {
  if (std::string error = read_key(options, access); !error.empty()) return error;
  access.tls = options.tls || !options.ca.empty() || !options.certificate.empty();
  std::string error = read_pem("--ca", options.ca, "CERTIFICATE", access.ca);
  if (error.empty()) error = read_pem("--cert", options.certificate, "CERTIFICATE", access.certificate);
  if (error.empty()) error = read_pem("--key", options.private_key, "PRIVATE KEY", access.private_key);
  return error;
}

}  // namespace pkv::client
