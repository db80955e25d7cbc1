// The options of every command that say how the server is reached beside its address.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "client/access.h"

namespace pkv::client {

struct AccessOptions {
  std::string api_key_file;
  bool tls = false;
  std::string ca, certificate, private_key;  // files
};

void add_access_options(CLI::App& app, AccessOptions& options);

// Reads the files, and the key of the environment where no file has one. Returns what is wrong, or "".
std::string read_access(const AccessOptions& options, Access& access);

}  // namespace pkv::client
