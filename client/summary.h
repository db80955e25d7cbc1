// One line about an answer: what was kept and saved, how fast it came; and hints about answers that surprise.
#pragma once

#include <string>

#include "pyramidkv/v1/generation.pb.h"

namespace pkv::client {

namespace v1 = ::pyramidkv::v1;

// "pyramidkv 256: kept 2.00 MiB of 16.00 MiB, saved 87.1 %; recall 97.2 %; first token 1.20 s, then 54.0 tok/s". The
// part about the cache is missing where the reply has no report.
std::string answer_summary(const v1::GenerateResponse& reply);

// Why the answer is empty or cut off, and what to try; "" where it is neither. `raw`: the prompt went without the
// model's chat template, which it has where `has_template`.
std::string answer_hint(const v1::GenerateResponse& reply, bool raw, bool has_template);

// One line per token: id, text, log-probability and, where asked for, the likeliest tokens. Where only ids were asked
// for, those alone.
std::string token_table(const v1::Choice& choice, bool logprobs);

}  // namespace pkv::client
