// Files, messages and the assembly of prompts for the commands.
#include "client/command_support.h"

#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <iostream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

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

int fail(const Client& client, const Error& error) {
  std::cerr << "pyramidkv: " << error.describe() << "\n";
  if (error.reachable) return kRpcError;
  std::cerr << "Is it running? 'scripts/run --serve' starts one; --server HOST:PORT names another than "
            << client.target() << ".\n";
  return kUnreachable;
}

int usage_error(const std::string& message) {
  std::cerr << "pyramidkv: " << message << "\n";
  return kUsage;
}

bool read_all(const std::string& path, std::string& text) {
  std::ifstream file;
  if (path != "-") {
    file.open(path, std::ios::binary);
    if (!file) return false;
  }
  std::istream& input = path == "-" ? std::cin : file;
  text.clear();
  // A folder opens and fails only here; read() notes that, where an iterator over the buffer would throw it.
  std::array<char, 4096> part;
  while (input.read(part.data(), part.size()) || input.gcount() > 0) {
    text.append(part.data(), static_cast<size_t>(input.gcount()));
  }
  return !input.bad();
}

bool write_all(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  file << text;
  return static_cast<bool>(file.flush());
}

std::string read_reply(const std::string& path, v1::GenerateResponse& reply) {
  std::string text;
  if (!read_all(path, text)) return absl::StrCat("cannot read ", path);
  google::protobuf::util::JsonParseOptions options;
  options.ignore_unknown_fields = true;
  if (google::protobuf::util::JsonStringToMessage(text, &reply, options).ok()) return "";
  return absl::StrCat(path, " is no reply saved by 'generate --save-reply' or '--json'");
}

std::string reply_title(const v1::GenerateResponse& reply) {
  std::string title = reply.cache().policy_name();
  if (reply.cache().compressed()) absl::StrAppend(&title, " ", reply.cache().budget_tokens());
  return title;
}

std::string assemble_prompt(GenerateOptions& options) {
  if (!options.prompt_file.empty()) {
    if (options.request.prompt) return "a prompt and --prompt-file exclude each other";
    std::string text;
    if (!read_all(options.prompt_file, text)) return absl::StrCat("--prompt-file: cannot read ", options.prompt_file);
    options.request.prompt = std::move(text);
  }
  const bool chat = options.chat || !options.question.empty() || !options.system.empty();
  if (!options.request.prompt && options.question.empty())
    return "no prompt: give it as an argument or with --prompt-file";
  if (!chat) return "";
  if (!options.system.empty()) options.request.chat.emplace_back("system", options.system);
  std::string content = options.request.prompt.value_or("");
  if (!options.question.empty()) absl::StrAppend(&content, content.empty() ? "" : "\n\n", options.question);
  options.request.chat.emplace_back("user", std::move(content));
  options.request.prompt.reset();
  return "";
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
    return usage_error(absl::StrCat("'", policy->preset(), "' is no policy (", absl::StrJoin(policy_names(), ", "),
                                    ") and no preset of the server (",
                                    presets.empty() ? "it has none" : absl::StrJoin(presets, ", "), ")"));
  }
  return kGood;
}

}  // namespace pkv::client
