// A self-contained HTML page about replies to one prompt, side by side: heat map of the kept positions per layer and KV
// head, entries per layer, the prompt shaded by how many heads kept each token, report, answer. The page is
// client/inspect/ with the replies as JSON in it; it loads nothing else.
#pragma once

#include <string>
#include <vector>

#include "pyramidkv/v1/generation.pb.h"

namespace pkv::client {

namespace v1 = ::pyramidkv::v1;

struct InspectView {
  std::string title;  // e.g. "pyramidkv 128"
  v1::GenerateResponse reply;
};

struct InspectInput {
  std::string question;             // shown above everything; may be empty
  std::vector<std::string> tokens;  // the prompt's token texts, see token_texts.h; may be empty
  std::vector<InspectView> views;   // at least one; of the same prompt
};

// Whether the report lists kept positions, without which there is nothing to draw.
bool has_positions(const v1::GenerateResponse& reply);

// The answer, without the prompt that output.echo puts in front of it.
std::string answer_text(const v1::GenerateResponse& reply);

// The prompt's token texts where the reply repeats it with log-probabilities (output.echo, output.logprobs); else none.
std::vector<std::string> echoed_token_texts(const v1::GenerateResponse& reply);

// The whole page. Strings of server and user cannot leave their place in it: the JSON has no '<', '>' or '&', and the
// page's script writes them as text only.
std::string inspect_page(const InspectInput& input);

// The replies as the page's script reads them: of every KV head the positions kept straight after prefill ("runs") and,
// where the reply has them, those at the end of the answer ("final"). Positions are run lengths, [gap, kept, gap, kept,
// ...] from position 0.
std::string inspect_data(const InspectInput& input);

// `text` as a JSON string with its quotes: no '<', '>', '&', control characters or line separators in it, bytes that
// are no UTF-8 become U+FFFD.
std::string json_string(const std::string& text);

// Lengths of the alternating runs of missing and present numbers, from 0 on. `positions` ascend; those that do not are
// left out.
std::vector<uint32_t> run_lengths(const google::protobuf::RepeatedField<uint32_t>& positions);

// client/inspect/page.html with style and scripts, and @DATA@ where the JSON belongs.
const char* inspect_page_template();

}  // namespace pkv::client
