// `pyramidkv generate`: one prompt, one answer.
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "client/cli/answer.h"
#include "client/cli/command_support.h"
#include "client/cli/prompt_input.h"

namespace pkv::client {

int run_generate(Client& client, GenerateOptions options) {
  options.report = options.request.report;
  const bool print = !options.report.empty() && options.report != "none";
  if (!options.save_reply.empty()) {
    if (std::string error = cannot_write(options.save_reply); !error.empty())
      return usage_error(absl::StrCat("--save-reply: ", error));
    if (!print) options.request.report = "layers";
  }
  v1::GenerateRequest request;
  if (const int code = prepare_request(client, options, request); code != kGood) return code;
  const bool to_terminal = !options.json && isatty(STDOUT_FILENO) == 1;
  const AnswerView view{
      .stream = options.stream || (to_terminal && !options.no_stream), .json = options.json, .quiet = options.quiet};
  v1::GenerateResponse reply;
  const auto result = fetch_answer(client, request, view, reply);
  if (!result)
    return fail(client, result.error, {.max_tokens = options.request.max_tokens.value_or(kDefaultMaxTokens)});
  print_details(options, reply);
  if (!options.save_reply.empty() && !write_all(options.save_reply, to_json(reply, true) + "\n"))
    return usage_error(absl::StrCat("--save-reply: ", cannot_write(options.save_reply)));
  return kGood;
}

}  // namespace pkv::client
