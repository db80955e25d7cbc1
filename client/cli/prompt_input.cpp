// Where a prompt comes from, and whether it goes as a chat message or as it is.
#include "client/cli/prompt_input.h"

#include <sys/stat.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "client/cli/command_support.h"
#include "client/cli/progress.h"
#include "client/utf8.h"

namespace pkv::client {
namespace {

// Whether there is something on standard input that nobody has to type. With `only_data` a pipe or a file, for
// otherwise the prompt is complete without it.
bool standard_input_is_given(bool only_data) {
  struct stat input {};
  if (fstat(STDIN_FILENO, &input) != 0 || isatty(STDIN_FILENO)) return false;
  return !only_data || S_ISFIFO(input.st_mode) || S_ISREG(input.st_mode);
}

// The prompt's text from where the options say, standard input where they say nothing. Returns what is wrong, or "".
std::string read_prompt(GenerateOptions& options) {
  std::optional<std::string>& prompt = options.request.prompt;
  if (!options.prompt_file.empty() && prompt)
    return "a prompt and --prompt-file exclude each other; --question asks about a file";
  const bool unnamed = options.prompt_file.empty() && !prompt && standard_input_is_given(!options.question.empty());
  const std::string path = unnamed ? "-" : options.prompt_file;
  if (!path.empty()) {
    std::string text;
    {
      const Progress progress(path == "-" && !options.quiet && !isatty(STDIN_FILENO), "reading standard input");
      if (!read_all(path, text)) return absl::StrCat("--prompt-file: ", cannot_read(path));
    }
    if (!text.empty() || !options.prompt_file.empty()) prompt = std::move(text);
  }
  if (!prompt && options.question.empty())
    return "no prompt: give it as an argument, with --prompt-file (-f) or on standard input";
  if (prompt && prompt->empty()) return "the prompt is empty";
  for (const std::string* text : {prompt ? &*prompt : nullptr, &options.question, &options.system}) {
    if (!text) continue;
    if (const size_t at = first_invalid_utf8(*text); at != std::string::npos)
      return absl::StrCat("the prompt is no UTF-8 text (byte ", at, " of ", text->size(),
                          "); iconv -t UTF-8 converts it");
  }
  return "";
}

// Chat or plain text: what the options insist on, else chat where the model has a template.
int choose_form(Client& client, GenerateOptions& options) {
  if (options.raw && !options.system.empty()) return usage_error("--raw and --system exclude each other");
  if (options.raw && options.chat) return usage_error("--raw and --chat exclude each other");
  int code = kGood;
  const std::optional<v1::Model> model = find_model(client, options.request.model, code);
  if (code != kGood) return code;
  options.has_template = model && model->has_chat_template();
  const bool as_chat = options.chat || !options.system.empty() || (options.has_template && !options.raw);
  std::string content = options.request.prompt.value_or("");
  if (!options.question.empty()) absl::StrAppend(&content, content.empty() ? "" : "\n\n", options.question);
  if (!as_chat) {
    options.request.prompt = std::move(content);
    return kGood;
  }
  if (!options.system.empty()) options.request.chat.emplace_back("system", options.system);
  options.request.chat.emplace_back("user", std::move(content));
  options.request.prompt.reset();
  return kGood;
}

}  // namespace

std::optional<v1::Model> find_model(Client& client, const std::string& id, int& code) {
  const auto list = client.list_models();
  code = kGood;
  if (!list && list.error.code != grpc::StatusCode::UNIMPLEMENTED) code = fail(client, list.error);
  if (!list) return std::nullopt;
  for (const v1::Model& model : list->models()) {
    if (id.empty() || model.id() == id) return model;
  }
  return std::nullopt;
}

int assemble_prompt(Client& client, GenerateOptions& options) {
  if (std::string error = read_prompt(options); !error.empty()) return usage_error(error);
  return choose_form(client, options);
}

std::string read_sampling(GenerateOptions& options) {
  if (!options.seed.empty()) {
    if (std::string error = parse_seed(options.seed, options.request.seed); !error.empty()) return error;
  }
  // A random seed that was asked for by name asks for sampling too.
  const bool random = !options.seed.empty() && !options.request.seed;
  if (!random) greedy_unless_asked(options.request);
  return "";
}

int prepare_request(Client& client, GenerateOptions& options, v1::GenerateRequest& request) {
  if (std::string error = read_sampling(options); !error.empty()) return usage_error(error);
  v1::GenerateRequest draft;  // what can be judged without the server is judged first
  if (std::string error = build_request(options.request, draft); !error.empty()) return usage_error(error);
  client.set_deadline(options.deadline);
  if (const int code = assemble_prompt(client, options); code != kGood) return code;
  if (std::string error = build_request(options.request, request); !error.empty()) return usage_error(error);
  if (!options.request.cache.preset.empty()) return kGood;
  return check_presets(client, {&request.cache_policy()});
}

}  // namespace pkv::client
