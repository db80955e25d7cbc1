// Asks for one answer and shows it: text on standard output, progress and summary on standard error. Always streams, so
// that it is known how far the prompt is.
#pragma once

#include <stop_token>

#include "client/cli/commands.h"
#include "client/client.h"

namespace pkv::client {

struct AnswerView {
  bool stream = false;  // print text as it comes
  bool json = false;    // print the reply, or with `stream` every message, as proto3 JSON
  bool silent = false;  // print no answer at all
  bool quiet = false;   // no progress
};

// `reply` becomes what the unary call would have answered; of an answer that breaks off it has what came. The result
// says whether it is whole. Text that was begun ends with a line's end.
Result<v1::StreamEnd> fetch_answer(Client& client, const v1::GenerateRequest& request, const AnswerView& view,
                                   v1::GenerateResponse& reply, std::stop_token stop = {});

// Report, token table, summary and hints of an answer, as asked for.
void print_details(const GenerateOptions& options, const v1::GenerateResponse& reply);

}  // namespace pkv::client
