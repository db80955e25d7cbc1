// Files, messages and the assembly of prompts for the commands.
#include "client/cli/command_support.h"

#include <fcntl.h>
#include <google/protobuf/util/json_util.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/utf8.h"
#include "client/words.h"

namespace pkv::client {
std::string to_json(const google::protobuf::Message& message, bool pretty) {
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = pretty;
  options.always_print_primitive_fields = false;
  std::string text;
  (void)google::protobuf::util::MessageToJsonString(message, &text, options);
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

int fail(const Client& client, const Error& error, const ErrorContext& context) {
  std::cerr << "pyramidkv: " << for_terminal(error_text(error, context)) << "\n";
  if (error.bad_target) return kUsage;
  if (error.reachable) return kRpcError;
  if (!error.answered)
    std::cerr << "Is it running? 'pyramidkv-server --set model.path=FILE' starts one; --server HOST:PORT names another "
              << "than " << client.target() << ".\n";
  return kUnreachable;
}

int usage_error(const std::string& message) {
  std::cerr << "pyramidkv: " << message << "\n";
  return kUsage;
}

bool read_all(const std::string& path, std::string& text) {
  if (path == "-") {
    text.assign(std::istreambuf_iterator<char>(std::cin), {});
    return true;
  }
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) return false;  // a stream opens it, and throws when it reads
  std::ifstream file(path, std::ios::binary);
  if (!file) return false;
  text.assign(std::istreambuf_iterator<char>(file), {});
  return !file.bad();
}

std::string cannot_read(const std::string& path) {
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  int error = descriptor < 0 ? errno : EIO;
  if (descriptor >= 0) close(descriptor);
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) error = EISDIR;
  return absl::StrCat("cannot read ", path, ": ", std::strerror(error));
}

bool write_all(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  file << text;
  return static_cast<bool>(file.flush());
}

std::string cannot_write(const std::string& path) {
  namespace fs = std::filesystem;
  const auto complaint = [&](int error) { return absl::StrCat("cannot write ", path, ": ", std::strerror(error)); };
  std::error_code error;
  if (fs::is_directory(path, error)) return complaint(EISDIR);
  if (fs::exists(path, error)) return access(path.c_str(), W_OK) == 0 ? "" : complaint(errno);
  const fs::path folder = fs::path(path).parent_path();
  const std::string parent = folder.empty() ? "." : folder.string();
  if (access(parent.c_str(), W_OK | X_OK) != 0) return complaint(errno);
  return fs::is_directory(parent, error) ? "" : complaint(ENOTDIR);
}

std::string read_reply(const std::string& path, v1::GenerateResponse& reply) {
  std::string text;
  if (!read_all(path, text)) return cannot_read(path);
  google::protobuf::util::JsonParseOptions options;
  options.ignore_unknown_fields = true;
  const bool read = google::protobuf::util::JsonStringToMessage(text, &reply, options).ok();
  if (read && reply.choices_size() > 0) return "";
  return absl::StrCat(path, " is no reply saved by 'generate --save-reply' or '--json'");
}

std::string reply_title(const v1::GenerateResponse& reply) {
  std::string title = reply.cache().policy_name();
  if (reply.cache().compressed()) absl::StrAppend(&title, " ", reply.cache().budget_tokens());
  return title;
}

int check_presets(Client& client, const std::vector<const v1::CachePolicy*>& policies) {
  const auto is_preset = [](const v1::CachePolicy* policy) { return policy->has_preset(); };
  if (std::none_of(policies.begin(), policies.end(), is_preset)) return kGood;
  const auto list = client.list_cache_policies();
  if (!list) return fail(client, list.error);
  for (const v1::CachePolicy* policy : policies) {
    if (!policy->has_preset()) continue;
    std::vector<std::string> presets;
    for (const auto& preset : list->presets()) presets.push_back(preset.name());
    if (std::find(presets.begin(), presets.end(), policy->preset()) != presets.end()) continue;
    std::vector<std::string> known = policy_names();
    known.insert(known.end(), presets.begin(), presets.end());
    return usage_error(absl::StrCat("'", policy->preset(), "' is no policy (", absl::StrJoin(policy_names(), ", "),
                                    ") and no preset of the server (",
                                    presets.empty() ? "it has none" : absl::StrJoin(presets, ", "), ")",
                                    did_you_mean(policy->preset(), known)));
  }
  return kGood;
}

size_t output_width() {
  winsize size = {};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  const char* columns = std::getenv("COLUMNS");
  uint32_t width = 0;
  return columns && absl::SimpleAtoi(columns, &width) && width > 0 ? width : 100;
}

}  // namespace pkv::client
